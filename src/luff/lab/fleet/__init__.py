"""
Small services with one planted defect each, for `luff selftest`.

``python -m luff.lab.fleet`` plays the service that ``HABIT`` names: it asks
``stock`` and answers with what it got, or with a fallback. Every defect is one
that people really ship, and is one deviation from the healthy habit.
"""
