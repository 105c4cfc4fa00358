//! The integration tests: one binary, one module for each thing that is tested.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

// Sigstore bundles: the conformance suite, and bundles of our own.
mod bundles;
// Output, exit codes, bad input.
mod cli;
mod cosign3;
// Authentication files and credential helpers.
mod credentials;
// The interface on a message bus, and the daemon.
mod dbus;
// The same, for manifests that the caller chooses.
mod dbus_content;
mod dbus_stream;
mod dbus_users;
// The verdicts of the installed skopeo, and of a later one.
mod differential;
// A real registry and real signatures.
mod end_to_end;
// Whose signature counts, said in flags instead of a policy.
mod flags;
// Too much of everything.
mod hostile;
// What is attached to an image, proven or only said.
mod inspect;
// Keys of every kind, times at every boundary.
mod keys;
// Keyless identities: policy, certificates, matching.
mod keyless;
// Imports between modules go only one way.
mod layering;
// Policies that can be used, but hardly say what was meant.
mod lint;
// What starts a real registry, and keys that sign for it.
mod live;
// Archives, stores of containers-storage, transports that cannot be read.
mod local;
mod manual;
// Whose signatures count.
mod matrix;
// Mirrors, insecure registries, proxies, short names: whole verifications.
mod mirrors;
// Which files of registries.conf count, and what they mean.
mod registries_conf;
// The daemon under a real systemd.
mod nspawn;
// registries.d, lookaside stores, local images, the search for a policy.
mod registries_d;
// Signatures that refer to an image.
mod referrers;
// The client of registries against hostile servers.
mod registry;
// Every rule about registries is cited by a test.
mod reuse;
mod rules;
// Servers that answer by a script.
mod server;
// What a new policy would change.
mod simulate;
// A small Sigstore.
mod signer;
mod status;
// What several modules need.
mod support;
// What is promised in writing: manual, README, examples.
mod surface;
// The trusted root of a host, and its updates.
mod trust;
// Verdicts of the reference implementation.
mod vectors;
mod verify_blob;
