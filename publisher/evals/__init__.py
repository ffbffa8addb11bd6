"""Benchmark results of lm-evaluation-harness: read, proved comparable, compared, and written as the Hub takes them.

The evaluation of a recipe (`publisher.native.evaluate`) measures a perplexity and is another matter; here nothing is
measured, only what the harness wrote is read.
"""
