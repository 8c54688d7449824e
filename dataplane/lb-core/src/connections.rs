//! Which connection to a backend a request takes, and how many are kept.
