"""The ledger: rows of every kind whose sums are known, published while processes are killed, compared at the end."""
