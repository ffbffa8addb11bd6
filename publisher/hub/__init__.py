"""Publishing: what a place to publish must offer, two such places, and the one order of steps that fills them.

`target` says what a push needs, `folder` and `huggingface` offer it, `push` does it. Neither place is trusted: what
counts is the tree read back, compared with the manifest.
"""
