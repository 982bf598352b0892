"""The only room that touches what JAX does not promise to keep."""
