"""The HDF5 shard format: files of one video (clip files) or many (shards), written once and read at random.

* `schema`: the format as declarations;
* `chunks`, `jpeg`, `native`: flow fields and frames as bytes, and back;
* `new_shard`, `writer`: writing clip files and shards;
* `file_bytes`, `structure`, `reader`: reading a file by position, checking where everything lies in it, and decoding clips;
* `check`, `verify`: looking for damage, in child processes with limits.
"""
