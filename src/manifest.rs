//! The digest of a manifest, its media type, and the instance of an index that fits a platform.

use std::fmt;

use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use serde::Deserialize;

use crate::digest::Digest;
use crate::json::{self, Data, Member, Value};

/// Deepest JSON nesting read here; manifests need six levels.
const DEPTH: usize = 64;

/// OCI image manifest; OCI image-spec, media-types.md.
pub const OCI_MANIFEST: &str = OCI_IMAGE_MEDIA_TYPE;
/// OCI image index; OCI image-spec, media-types.md.
pub const OCI_INDEX: &str = OCI_IMAGE_INDEX_MEDIA_TYPE;
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = IMAGE_MANIFEST_MEDIA_TYPE;
/// Docker manifest list.
pub const DOCKER_LIST: &str = IMAGE_MANIFEST_LIST_MEDIA_TYPE;
/// Docker image manifest, schema 1.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker image manifest, schema 1 with embedded signatures.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// A schema 1 manifest whose embedded signatures cannot be read, so that it has no digest (rule E-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the embedded signatures of the schema 1 manifest are malformed")]
pub struct MalformedSchema1;

/// The SHA-256 digest by which registries and signatures name this manifest (rules E-21, E-22).
pub fn digest(bytes: &[u8]) -> Result<Digest, MalformedSchema1> {
    if sniff_media_type(bytes) == DOCKER_SCHEMA1_SIGNED {
        Ok(Digest::sha256(&schema1_payload(bytes).ok_or(MalformedSchema1)?))
    } else {
        Ok(Digest::sha256(bytes))
    }
}

/// Whether the type is that of an index or manifest list.
pub fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_LIST
}

/// The media type that the bytes themselves show; empty if none (rule E-22).
///
/// Member names match in any case and the last of several counts, as in the reference's decoder.
pub fn sniff_media_type(bytes: &[u8]) -> &'static str {
    let Ok(value) = json::parse(bytes, DEPTH) else { return "" };
    let Some(members) = value.members() else { return "" };
    let Some(claimed) = last_text(members, "mediaType") else { return "" };
    for known in [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX] {
        if claimed == known {
            return known;
        }
    }
    match last_integer(members, "schemaVersion") {
        Some(1) if last(members, "signatures").is_some_and(|v| !v.is_null()) => DOCKER_SCHEMA1_SIGNED,
        Some(1) => DOCKER_SCHEMA1,
        Some(2) => sniff_schema2(members),
        Some(_) | None => "",
    }
}

/// OCI manifests before image-spec 1.0.2 have no `mediaType`; the config or the members tell.
fn sniff_schema2(members: &[Member<'_>]) -> &'static str {
    let config = last(members, "config").and_then(Value::members).unwrap_or_default();
    match last_text(config, "mediaType") {
        Some(IMAGE_CONFIG_MEDIA_TYPE) => OCI_MANIFEST,
        Some(IMAGE_DOCKER_CONFIG_MEDIA_TYPE) => DOCKER_MANIFEST,
        Some(_) => match last(members, "manifests").map(|v| v.elements()) {
            None => OCI_MANIFEST,
            Some(Some([])) => OCI_MANIFEST,
            Some(Some(_)) => OCI_INDEX,
            Some(None) => "",
        },
        None => "",
    }
}

/// Whether Go's decoder takes `key` for `name`, which is ASCII: Unicode simple folding.
fn folds(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

fn last<'v, 'a>(members: &'v [Member<'a>], name: &str) -> Option<&'v Value<'a>> {
    members.iter().rev().find(|m| folds(&m.key, name)).map(|m| &m.value)
}

/// The last string of that name, empty if there is none; `None` if any of that name is something else.
fn last_text<'v>(members: &'v [Member<'_>], name: &str) -> Option<&'v str> {
    let mut text = "";
    for member in members.iter().filter(|m| folds(&m.key, name)) {
        match &member.value.data {
            Data::String(value) => text = value,
            Data::Null => {}
            Data::Bool(_) | Data::Number(_) | Data::Array(_) | Data::Object(_) => return None,
        }
    }
    Some(text)
}

/// The last integer of that name, 0 if there is none; `None` if any of that name is something else.
fn last_integer(members: &[Member<'_>], name: &str) -> Option<i64> {
    let mut integer = 0;
    for member in members.iter().filter(|m| folds(&m.key, name)) {
        match &member.value.data {
            Data::Number(written) => integer = written.parse().ok()?,
            Data::Null => {}
            Data::Bool(_) | Data::String(_) | Data::Array(_) | Data::Object(_) => return None,
        }
    }
    Some(integer)
}

/// What the embedded signatures sign: the first `formatLength` bytes and then `formatTail`.
///
/// Stricter than the reference, which ignores whatever stands after the signed bytes: nothing but the
/// `signatures` member may, so that no unsigned member can take the place of a signed one.
fn schema1_payload(bytes: &[u8]) -> Option<Vec<u8>> {
    let value = json::parse(bytes, DEPTH).ok()?;
    let (signatures, others) = value.members()?.split_last()?;
    if signatures.key != "signatures" || last(others, "signatures").is_some() {
        return None;
    }
    let (first, rest) = signatures.value.elements()?.split_first()?;
    let (length, tail) = protected_format(first)?;
    if rest.iter().any(|other| protected_format(other).as_ref() != Some(&(length, tail.clone()))) {
        return None;
    }
    let gap = bytes.get(length..signatures.key_span.start)?;
    let blank = |bytes: &[u8]| bytes.trim_ascii().is_empty();
    let comma_only = matches!(gap.trim_ascii(), b"," | b"");
    let closes = tail.trim_ascii().strip_suffix(b"}").is_some_and(blank);
    if !comma_only || !closes || others.last().is_some_and(|m| m.value.span.end > length) {
        return None;
    }
    let mut payload = bytes.get(..length)?.to_vec();
    payload.extend_from_slice(&tail);
    Some(payload)
}

/// `formatLength` and `formatTail` of one signature's protected header.
fn protected_format(signature: &Value<'_>) -> Option<(usize, Vec<u8>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Protected {
        format_length: usize,
        format_tail: String,
    }
    let protected = last_text(signature.members()?, "protected")?;
    let header: Protected = serde_json::from_slice(&decode_base64_url(protected)?).ok()?;
    Some((header.format_length, decode_base64_url(&header.format_tail)?))
}

fn decode_base64_url(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}

/// Operating system, architecture and variant, in Go's words; OCI image-spec, image-index.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v8`; empty if none.
    pub variant: String,
}

impl Platform {
    /// The platform of this host.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// Reads `OS/ARCH[/VARIANT]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let os = parts.next().filter(|p| !p.is_empty())?;
        let architecture = parts.next().filter(|p| !p.is_empty())?;
        let variant = parts.next().unwrap_or_default();
        parts.next().is_none().then(|| Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        })
    }

    /// Variants that run here, best first (rule E-35).
    fn variants(&self) -> Vec<&str> {
        let known: &[&str] = match self.architecture.as_str() {
            "arm" => &["v8", "v7", "v6", "v5"],
            "arm64" => &["v8"],
            _ => &[],
        };
        if self.variant.is_empty() {
            return std::iter::once("").chain(known.iter().copied()).collect();
        }
        let compatible: Vec<&str> = known.iter().copied().skip_while(|v| *v != self.variant).collect();
        let first = if compatible.is_empty() { vec![self.variant.as_str()] } else { compatible };
        first.into_iter().chain([""]).collect()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// The members of an index that the choice of an instance needs.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    platform: Option<EntryPlatform>,
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct EntryPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// Why no instance can be chosen from an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoInstance {
    /// The index, or the digest of the chosen entry, cannot be read.
    Malformed,
    /// No entry fits the platform.
    NoMatch,
}

/// The digest of the instance that the reference would copy for `platform` (rule E-35).
pub fn choose_instance(bytes: &[u8], media_type: &str, platform: &Platform) -> Result<Digest, NoInstance> {
    let index: Index = serde_json::from_slice(bytes).map_err(|_| NoInstance::Malformed)?;
    let variants = platform.variants();
    let fit = |p: &EntryPlatform| {
        (p.os == platform.os && p.architecture == platform.architecture)
            .then(|| variants.iter().position(|v| *v == p.variant))
            .flatten()
    };
    let oci = media_type == OCI_INDEX;
    let best = index
        .manifests
        .iter()
        .filter_map(|entry| {
            let fit = match &entry.platform {
                Some(platform) => fit(platform)?,
                None if oci => usize::MAX,
                None => return None,
            };
            Some(((fit, oci && !entry.is_zstd()), entry))
        })
        .min_by_key(|(rank, _)| *rank);
    let (_, entry) = best.ok_or(NoInstance::NoMatch)?;
    Digest::parse(&entry.digest).ok_or(NoInstance::Malformed)
}

impl Entry {
    fn is_zstd(&self) -> bool {
        self.annotations
            .as_ref()
            .and_then(|a| a.get("io.github.containers.compression.zstd"))
            .is_some_and(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;

    #[test]
    fn media_types_are_sniffed_as_the_reference_does() {
        for (text, wanted) in [
            ("not json", ""),
            ("[]", ""),
            (r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}"#, OCI_INDEX),
            (r#"{"MEDIATYPE":"application/vnd.oci.image.index.v1+json"}"#, OCI_INDEX),
            (r#"{"schemaVersion":1}"#, DOCKER_SCHEMA1),
            (r#"{"schemaVersion":1,"Signatures":[]}"#, DOCKER_SCHEMA1_SIGNED),
            (r#"{"schemaVersion":1,"signatures":[],"signatures":null}"#, DOCKER_SCHEMA1),
            ("{\"\u{17f}chemaVersion\":1,\"\u{17f}ignatures\":[]}", DOCKER_SCHEMA1_SIGNED),
            (r#"{"schemaVersion":1,"mediaType":7}"#, ""),
            (r#"{"schemaVersion":"1"}"#, ""),
            (
                r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"}}"#,
                OCI_MANIFEST,
            ),
            (r#"{"schemaVersion":2,"manifests":[{}]}"#, OCI_INDEX),
            (r#"{"schemaVersion":2,"manifests":[]}"#, OCI_MANIFEST),
        ] {
            assert_eq!(sniff_media_type(text.as_bytes()), wanted, "{text}");
        }
    }

    fn schema1(body: &str, extra: &str, signed: &str) -> String {
        let encode = |t: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(t);
        let protected =
            encode(&format!(r#"{{"formatLength":{},"formatTail":"{}"}}"#, signed.len(), encode("\n}")));
        format!(r#"{body}{extra},"signatures":[{{"protected":"{protected}"}}]}}"#)
    }

    #[test]
    fn schema1_digests_cover_the_signed_bytes_only() {
        let body = r#"{"schemaVersion":1,"fsLayers":[]"#;
        let manifest = schema1(body, "", body);
        assert_eq!(digest(manifest.as_bytes()), Ok(Digest::sha256(format!("{body}\n}}").as_bytes())));
    }

    #[test]
    fn schema1_members_outside_the_signed_bytes_are_refused() {
        let body = r#"{"schemaVersion":1,"fsLayers":[]"#;
        for manifest in [
            schema1(body, r#","fsLayers":["evil"]"#, body),
            schema1(body, "", r#"{"schemaVersion":1"#),
            format!(r#"{body},"signatures":[]}}"#),
            format!(r#"{body},"Signatures":[{{}}]}}"#),
            schema1(body, r#","signatures":[]"#, body),
        ] {
            assert_eq!(digest(manifest.as_bytes()), Err(MalformedSchema1), "{manifest}");
        }
    }

    #[test]
    fn the_best_instance_is_chosen() {
        let d = |c: &str| format!("sha256:{}", c.repeat(64));
        let entry = |digest: &str, rest: &str| format!(r#"{{"digest":"{}"{rest}}}"#, d(digest));
        let at = |os: &str, arch: &str, variant: &str| {
            format!(r#","platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}"#)
        };
        let zstd = r#","annotations":{"io.github.containers.compression.zstd":"true"}"#;
        let amd64 = Platform::parse("linux/amd64").unwrap();
        let armv7 = Platform::parse("linux/arm/v7").unwrap();
        for (entries, media_type, platform, wanted) in [
            (
                vec![entry("1", &at("linux", "arm64", "")), entry("2", &at("linux", "amd64", ""))],
                OCI_INDEX,
                &amd64,
                Ok("2"),
            ),
            (vec![entry("1", ""), entry("2", &at("linux", "amd64", ""))], OCI_INDEX, &amd64, Ok("2")),
            (vec![entry("1", "")], OCI_INDEX, &amd64, Ok("1")),
            (vec![entry("1", "")], DOCKER_LIST, &amd64, Err(NoInstance::NoMatch)),
            (
                vec![
                    entry("1", &at("linux", "amd64", "")),
                    entry("2", &format!("{}{zstd}", at("linux", "amd64", ""))),
                ],
                OCI_INDEX,
                &amd64,
                Ok("2"),
            ),
            (
                vec![
                    entry("1", &at("linux", "amd64", "")),
                    entry("2", &format!("{}{zstd}", at("linux", "amd64", ""))),
                ],
                DOCKER_LIST,
                &amd64,
                Ok("1"),
            ),
            (
                vec![
                    entry("1", &at("linux", "arm", "v5")),
                    entry("2", &at("linux", "arm", "v6")),
                    entry("3", &at("linux", "arm", "v8")),
                ],
                OCI_INDEX,
                &armv7,
                Ok("2"),
            ),
            (vec![entry("1", &at("windows", "amd64", ""))], OCI_INDEX, &amd64, Err(NoInstance::NoMatch)),
            (vec![], OCI_INDEX, &amd64, Err(NoInstance::NoMatch)),
        ] {
            let text = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
            let wanted = wanted.map(|c| Digest::parse(&d(c)).unwrap());
            assert_eq!(choose_instance(text.as_bytes(), media_type, platform), wanted, "{text}");
        }
    }
}
