//! The tier as a whole, without HTTP.
