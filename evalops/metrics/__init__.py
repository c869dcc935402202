"""From verdicts to a summary. This is the map; each module uses those above it.

measure         rates and means, and how rows of one cluster count
tally           how rows ended: scored, invalid, failed
classification  what gold says of labels: confusion matrix, precision, recall, F1, kappa
labels, scores  the metrics of words and of numbers
breakdown       the same for the groups of a column
opinions        several votes on a row
summaries       all of it in one pass, and the names of the metrics
gate            thresholds held against a summary
thresholds      what may be asked of which metric, at plan time
"""
