"""Statistics as pure functions of numbers, over scipy and numpy, which are loaded on first use. This is the map:

intervals    of one sample, in closed form, and tests of several at once
contrast     two samples
resample     the bootstrap and permutations
agreement    several opinions on the same rows
strength     of players, from their games
"""
