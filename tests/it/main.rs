//! The integration tests: one binary, one module for each thing that is tested.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

// Imports between modules go only one way.
mod layering;
// Verdicts of the reference implementation.
mod vectors;
