"""Four recurrent jobs with published results, run by `python -m examples`; see README.md here."""
