"""What is on disk or on the Hub: files, shard headers, index, module table, quantization config, staged writing.

`open_checkpoint` reads headers and JSON only; tensor bytes are read when somebody asks for them.
"""
