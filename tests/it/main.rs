//! The integration tests: one binary, one module for each thing that is tested.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

// Output, exit codes, bad input.
mod cli;
// The interface on a message bus, and the daemon.
mod dbus;
// A real registry and real signatures.
mod end_to_end;
// Imports between modules go only one way.
mod layering;
// Archives, stores of containers-storage, transports that cannot be read.
mod local;
// The client of registries against hostile servers.
mod registry;
// registries.d, lookaside stores, local images, the search for a policy.
mod registries_d;
// What several modules need.
mod support;
// What is promised in writing: manual, README, examples.
mod surface;
// Verdicts of the reference implementation.
mod vectors;
