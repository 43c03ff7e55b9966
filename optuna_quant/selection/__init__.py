"""Which trial of a study is the answer, and the front of all: functions of the record.

May import: `costs` and what is below it.
"""
