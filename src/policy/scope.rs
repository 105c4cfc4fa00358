//! Which scopes a transport allows in policy.json (rules S-1 to S-11).
//!
//! The scopes that an image matches are those of [`crate::reference::ImageReference`].

use crate::digest::{Digest, is_lower_hex};
use crate::reference::Transport;

/// Why the scope can never be one of the transport, if the reference refuses it.
///
/// Scopes of unknown transports are not checked (rule P-7), nor is the empty scope.
pub fn check(transport: &str, scope: &str) -> Result<(), &'static str> {
    let Some(transport) = Transport::from_name(transport) else { return Ok(()) };
    if scope.is_empty() {
        return Ok(());
    }
    match transport {
        // Rule P-7: the reference does not know "ostree" any more, and takes any scope.
        Transport::Docker | Transport::Ostree => Ok(()),
        Transport::Atomic => check_atomic(scope),
        Transport::ContainersStorage => check_storage(scope),
        Transport::Dir | Transport::Oci | Transport::OciArchive | Transport::Sif => check_path(scope),
        Transport::DockerArchive | Transport::Tarball => {
            Err("only the empty scope is possible for this transport")
        }
        Transport::DockerDaemon => match Digest::parse(scope) {
            Some(_) => Err("an image ID is no scope"),
            None => Ok(()),
        },
    }
}

/// Rule S-5: `host[/namespace[/stream[:tag]]]`.
fn check_atomic(scope: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "the form is HOST[/NAMESPACE[/STREAM[:TAG]]]";
    let mut parts = scope.split('/');
    let (_host, namespace, stream) = (parts.next(), parts.next(), parts.next());
    let too_many = parts.next().is_some();
    let namespace_colon = namespace.is_some_and(|n| n.contains(':'));
    let stream_colons = stream.is_some_and(|s| s.matches(':').count() > 1);
    if too_many || namespace_colon || stream_colons { Err(SHAPE) } else { Ok(()) }
}

/// Rules S-9 and S-10: an absolute path in its shortest form.
fn check_path(scope: &str) -> Result<(), &'static str> {
    let rest = scope.strip_prefix('/').ok_or("the path must be absolute")?;
    if rest.is_empty() {
        return Err("\"/\" is no scope; use the empty scope for everything");
    }
    if rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("the path must not have \"//\", \"/./\", \"/../\" or \"/\" at its end");
    }
    Ok(())
}

/// Rule S-11: `[driver@/root]…` or `[/root]…`.
fn check_storage(scope: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "the form is [DRIVER@/ROOT] or [/ROOT], then NAME[:TAG][@DIGEST][@ID]";
    let (store, rest) = scope.strip_prefix('[').and_then(|s| s.split_once(']')).ok_or(SHAPE)?;
    let root = match store.split_once('@') {
        Some(("", _)) => return Err(SHAPE),
        Some((_, root)) => root,
        None => store,
    };
    if !root.starts_with('/') {
        return Err("the store's root must be an absolute path");
    }
    let is_id = |text: &str| text.len() == 64 && is_lower_hex(text);
    let is_digest = |text: &str| Digest::parse(text).is_some();
    let pieces: Vec<&str> = rest.split('@').collect();
    let fits = match pieces.as_slice() {
        [] | [_] => true,
        [_, second] => is_id(second) || is_digest(second),
        [_, second, third] => is_digest(second) && is_id(third),
        [_, _, _, ..] => false,
    };
    if fits { Ok(()) } else { Err(SHAPE) }
}
