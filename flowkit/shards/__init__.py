"""The HDF5 shard format: schema (declarations), writer, reader, verify."""
