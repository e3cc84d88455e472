//! Which client certificates open a connection and which do not.
