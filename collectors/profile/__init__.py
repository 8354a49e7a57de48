"""What is counted in the kernel and read once an interval: stacks and latency histograms, one file for each."""
