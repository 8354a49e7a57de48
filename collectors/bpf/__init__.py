"""Kernel side: the eBPF programs in C, and what compiles, loads and reads them."""
