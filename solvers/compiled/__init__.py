"""Kernels compiled by numba (extra `fast`), for NumPy arrays; importing one fails where numba is missing.

They are chosen by the sizes of a problem alone and treat every member of a batch in the same way, so that
results depend neither on the size of the batch nor on the processor.
"""
