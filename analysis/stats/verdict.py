"""The four verdicts, as summary.json, study.json and confirm.json have them."""

DIFFERENCE = "difference_shown"
NO_DIFFERENCE = "no_difference_shown"
NOT_ESTIMABLE = "not_estimable"
NOT_COMPARABLE = "not_comparable"
