//! The shell: everything that touches the kernel, the clock, files or the command line.
