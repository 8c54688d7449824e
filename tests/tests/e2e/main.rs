//! End to end: the real binaries, real sockets, the command line that people type.
