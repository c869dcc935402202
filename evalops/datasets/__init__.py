"""Rows. This is the map; each module uses those above it.

parquet      rows of one more format, where the extra is installed
formats      the files that datasets come in
dataset      rows as a stream: digests, row keys, what is wrong with them
sampling     a part of the rows, by chance that can be repeated
survey       what is in a dataset, column by column
sketch       a spec to start from
"""
