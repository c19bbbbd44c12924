"""Devices, precision, processes of one training, and batches on a device."""
