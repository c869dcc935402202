"""Type custom: a response held against the true answer, without a judge. This is the map.

pattern      regular expressions under a deadline
answer       what a response says in the end: a number, a letter
shape        JSON and its schema
overlap      words in common: BLEU, ROUGE, chrF
kinds        every kind by its name, with the fields that a spec may set
"""
