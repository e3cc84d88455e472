//! What the upstream gets: the request as it was, less what clients must not say, plus what the
//! gateway knows.
