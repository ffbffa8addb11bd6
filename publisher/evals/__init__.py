"""Benchmark results of lm-evaluation-harness: read, proved comparable, compared, and written as the Hub takes them.

The evaluation of a recipe (`publisher.native.evaluate`) measures a perplexity and is another matter; here nothing is
measured but by the harness, which `harness` starts, and only what it wrote is read.
"""
