//! The digest of a manifest, its media type, and the instance of an index that fits a platform.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use serde::Deserialize;

use crate::digest::Digest;
use crate::json::{self, Ambiguous, Data, Limits, Member, Value};

/// Manifests nest six levels. So many values hold an index of thousands of instances in some 10 MiB (T-28).
const LIMITS: Limits = Limits { depth: 64, values: 100_000 };

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

/// A manifest that readers could understand in different ways, or a schema 1 manifest that has no digest, because its
/// embedded signatures cannot be read (rule E-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it can be read in more than one way, or its embedded signatures are malformed")]
pub struct Malformed;

impl From<Ambiguous> for Malformed {
    fn from(_: Ambiguous) -> Self {
        Self
    }
}

/// The SHA-256 digest by which registries and signatures name this manifest (rules E-21, E-22).
pub fn digest(bytes: &[u8]) -> Result<Digest, Malformed> {
    if Shape::of(bytes)?.media_type == DOCKER_SCHEMA1_SIGNED {
        Ok(Digest::sha256(&schema1_payload(bytes)?))
    } else {
        Ok(Digest::sha256(bytes))
    }
}

/// Whether the type is that of an image or of an index: others the reference cannot read (rule E-30).
pub fn is_known(media_type: &str) -> bool {
    KNOWN.contains(&media_type)
}

const KNOWN: [&str; 6] =
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED];

/// Whether the type is that of an index or manifest list.
pub fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_LIST
}

/// The media type that the bytes themselves show; empty if none (rule E-22).
pub fn sniff_media_type(bytes: &[u8]) -> &'static str {
    Shape::of(bytes).map(|shape| shape.media_type).unwrap_or_default()
}

/// The type of the index if it is one: by what the source claims, as the reference decides (rule E-30), else by the
/// bytes. A claim that the bytes contradict is refused.
pub fn index_type(bytes: &[u8], claimed: &str) -> Result<Option<&'static str>, Malformed> {
    let Shape { media_type: shown, instances } = Shape::of(bytes)?;
    let claimed = KNOWN.into_iter().find(|known| *known == claimed).unwrap_or(shown);
    // What has instances is no image, whatever it says, or does not say.
    let entries_of_none = !is_index(claimed) && instances.is_some_and(|entries| !entries.is_empty());
    if entries_of_none || (!shown.is_empty() && is_index(claimed) != is_index(shown)) {
        return Err(Malformed);
    }
    Ok(Some(claimed).filter(|claimed| is_index(claimed)))
}

/// What the bytes of a manifest show.
///
/// Readers in Go take member names in any case and the last of several. Stricter than the reference, whatever two
/// readers could understand differently is refused, so that what was judged is what will be used.
struct Shape {
    media_type: &'static str,
    /// The entries, if it has `manifests`.
    instances: Option<Vec<Entry>>,
}

impl Shape {
    fn of(bytes: &[u8]) -> Result<Self, Malformed> {
        let unknown = Self { media_type: "", instances: None };
        let value = match json::parse(bytes, LIMITS) {
            Ok(value) => value,
            Err(error) if error.limit => return Err(Malformed),
            Err(_) => return Ok(unknown),
        };
        if value.members().is_none() {
            return Ok(unknown);
        }
        // OCI image-spec, manifest.md and image-index.md: which members belong to which document (CVE-2021-41190).
        let mut of_image = false;
        for name in ["config", "layers", "fsLayers", "history"] {
            of_image |= value.member(name)?.is_some();
        }
        let manifests = value.member("manifests")?;
        let media_type = sniff(&value)?;
        annotations(&value)?;
        if let Some(subject) = value.member("subject")? {
            Entry::read(subject)?;
        }
        if of_image && (manifests.is_some() || is_index(media_type)) {
            return Err(Malformed);
        }
        let instances = match manifests {
            None => None,
            Some(manifests) => {
                let entries = manifests.elements().ok_or(Malformed)?;
                Some(entries.iter().map(Entry::read).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { media_type, instances })
    }
}

fn sniff(value: &Value<'_>) -> Result<&'static str, Malformed> {
    let claimed = text(value, "mediaType")?;
    let version = integer(value, "schemaVersion")?;
    let signed = value.member("signatures")?.is_some();
    for known in [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX] {
        if claimed == known {
            return Ok(known);
        }
    }
    match version {
        1 if signed => Ok(DOCKER_SCHEMA1_SIGNED),
        1 => Ok(DOCKER_SCHEMA1),
        2 => sniff_schema2(value),
        _ => Ok(""),
    }
}

/// OCI manifests before image-spec 1.0.2 have no `mediaType`; the config or the members tell.
fn sniff_schema2(value: &Value<'_>) -> Result<&'static str, Malformed> {
    let config_type = match value.member("config")? {
        Some(config) if config.members().is_some() => text(config, "mediaType")?,
        Some(_) => return Err(Malformed),
        None => "",
    };
    let entries = value.member("manifests")?.and_then(Value::elements).unwrap_or_default();
    Ok(match config_type {
        IMAGE_CONFIG_MEDIA_TYPE => OCI_MANIFEST,
        IMAGE_DOCKER_CONFIG_MEDIA_TYPE => DOCKER_MANIFEST,
        _ if entries.is_empty() => OCI_MANIFEST,
        _ => OCI_INDEX,
    })
}

/// The string of that name; empty if it is absent or null.
fn text<'v>(value: &'v Value<'_>, name: &str) -> Result<&'v str, Malformed> {
    match value.member(name)? {
        Some(value) => value.text().ok_or(Malformed),
        None => Ok(""),
    }
}

/// The integer of that name; 0 if it is absent or null.
fn integer(value: &Value<'_>, name: &str) -> Result<i64, Malformed> {
    match value.member(name)?.map(|value| &value.data) {
        Some(Data::Number(written)) => written.parse().map_err(|_| Malformed),
        Some(_) => Err(Malformed),
        None => Ok(0),
    }
}

/// An array of strings, in which null is one too.
fn texts(value: &Value<'_>, name: &str) -> Result<(), Malformed> {
    let elements = value.member(name)?.map(|array| array.elements().ok_or(Malformed)).transpose()?;
    let sound =
        elements.unwrap_or_default().iter().all(|element| element.is_null() || element.text().is_some());
    if sound { Ok(()) } else { Err(Malformed) }
}

/// The annotations, whose values are strings or null.
fn annotations<'v, 'a>(value: &'v Value<'a>) -> Result<&'v [Member<'a>], Malformed> {
    let Some(annotations) = value.member("annotations")? else { return Ok(&[]) };
    let members = annotations.members().ok_or(Malformed)?;
    let sound = members.iter().all(|member| member.value.is_null() || member.value.text().is_some());
    if sound { Ok(members) } else { Err(Malformed) }
}

/// What the embedded signatures sign: the first `formatLength` bytes and then `formatTail`.
///
/// Stricter than the reference, which ignores whatever stands after the signed bytes: nothing but the
/// `signatures` member may, so that no unsigned member can take the place of a signed one.
fn schema1_payload(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let value = json::parse(bytes, LIMITS).map_err(|_| Malformed)?;
    let (signatures, others) = value.members().and_then(<[_]>::split_last).ok_or(Malformed)?;
    if signatures.key != "signatures" {
        return Err(Malformed);
    }
    let entries = signatures.value.elements().unwrap_or_default();
    let (first, rest) = entries.split_first().ok_or(Malformed)?;
    let (length, tail) = protected_format(first)?;
    for other in rest {
        if protected_format(other)? != (length, tail.clone()) {
            return Err(Malformed);
        }
    }
    let gap = bytes.get(length..signatures.key_span.start).ok_or(Malformed)?;
    let comma_only = matches!(gap.trim_ascii(), b"," | b"");
    let closes = tail.trim_ascii() == b"}";
    if !comma_only || !closes || others.last().is_some_and(|m| m.value.span.end > length) {
        return Err(Malformed);
    }
    let mut payload = bytes.get(..length).ok_or(Malformed)?.to_vec();
    payload.extend_from_slice(&tail);
    Ok(payload)
}

/// `formatLength` and `formatTail` of the protected header of one signature; what else it holds has the types that
/// the reference wants.
fn protected_format(signature: &Value<'_>) -> Result<(usize, Vec<u8>), Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Protected {
        format_length: usize,
        format_tail: String,
    }
    if !signature.has_finite_numbers() {
        return Err(Malformed);
    }
    text(signature, "signature")?;
    let header = signature.member("header")?.filter(|header| header.members().is_some()).ok_or(Malformed)?;
    text(header, "alg")?;
    if header.member("jwk")?.is_some_and(|key| key.members().is_none()) {
        return Err(Malformed);
    }
    let chain = match header.member("x5c")? {
        Some(chain) => chain.elements().ok_or(Malformed)?,
        None => &[],
    };
    if chain.iter().any(|certificate| certificate.text().is_none()) {
        return Err(Malformed);
    }
    let protected = decode_base64_url(text(signature, "protected")?)?;
    let header: Protected = serde_json::from_slice(&protected).map_err(|_| Malformed)?;
    Ok((header.format_length, decode_base64_url(&header.format_tail)?))
}

fn decode_base64_url(text: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed)
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
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
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

/// An entry of an index, as far as the choice of an instance needs it.
struct Entry {
    digest: String,
    platform: Option<Platform>,
    zstd: bool,
}

impl Entry {
    fn read(value: &Value<'_>) -> Result<Self, Malformed> {
        const ZSTD: &str = "io.github.containers.compression.zstd";
        if value.members().is_none() {
            return Err(Malformed);
        }
        // Members that decide nothing here must still not be what the reference cannot read.
        text(value, "mediaType")?;
        text(value, "artifactType")?;
        integer(value, "size")?;
        texts(value, "urls")?;
        if value.member("data")?.is_some_and(|data| data.bytes().is_none()) {
            return Err(Malformed);
        }
        let platform = match value.member("platform")? {
            Some(platform) if platform.members().is_some() => {
                text(platform, "os.version")?;
                texts(platform, "os.features")?;
                texts(platform, "features")?;
                Some(Platform {
                    os: text(platform, "os")?.to_owned(),
                    architecture: text(platform, "architecture")?.to_owned(),
                    variant: text(platform, "variant")?.to_owned(),
                })
            }
            Some(_) => return Err(Malformed),
            None => None,
        };
        let annotations = annotations(value)?;
        let mut zstd = annotations.iter().filter(|member| member.key == ZSTD);
        let zstd = match (zstd.next(), zstd.next()) {
            (None, _) => false,
            (Some(member), None) => member.value.text() == Some("true"),
            (Some(_), Some(_)) => return Err(Malformed),
        };
        Ok(Self { digest: text(value, "digest")?.to_owned(), platform, zstd })
    }
}

/// Why no instance can be chosen from an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoInstance {
    /// The index, or the digest of the chosen entry, cannot be read.
    Malformed,
    /// No entry fits the platform.
    NoMatch,
}

impl From<Malformed> for NoInstance {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The digest of the instance that the reference would copy for `platform` (rule E-35).
pub fn choose_instance(bytes: &[u8], media_type: &str, platform: &Platform) -> Result<Digest, NoInstance> {
    let instances = Shape::of(bytes)?.instances.unwrap_or_default();
    let variants = platform.variants();
    let fit = |p: &Platform| {
        (p.os == platform.os && p.architecture == platform.architecture)
            .then(|| variants.iter().position(|v| *v == p.variant))
            .flatten()
    };
    let oci = media_type == OCI_INDEX;
    let best = instances
        .iter()
        .filter_map(|entry| {
            let fit = match &entry.platform {
                Some(platform) => fit(platform)?,
                None if oci => usize::MAX,
                None => return None,
            };
            Some(((fit, oci && !entry.zstd), entry))
        })
        .min_by_key(|(rank, _)| *rank);
    let (_, entry) = best.ok_or(NoInstance::NoMatch)?;
    Digest::parse(&entry.digest).ok_or(NoInstance::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_sniffed_as_the_reference_does() {
        for (text, wanted) in [
            ("not json", Ok("")),
            ("[]", Ok("")),
            ("{}", Ok("")),
            (r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}"#, Ok(OCI_INDEX)),
            (r#"{"schemaVersion":1}"#, Ok(DOCKER_SCHEMA1)),
            (r#"{"schemaVersion":1,"signatures":[]}"#, Ok(DOCKER_SCHEMA1_SIGNED)),
            (r#"{"schemaVersion":1,"signatures":null}"#, Ok(DOCKER_SCHEMA1)),
            (
                r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"}}"#,
                Ok(OCI_MANIFEST),
            ),
            (
                r#"{"schemaVersion":2,"config":{"mediaType":"application/x-custom"},"layers":[]}"#,
                Ok(OCI_MANIFEST),
            ),
            (r#"{"schemaVersion":2,"manifests":[{}]}"#, Ok(OCI_INDEX)),
            (r#"{"schemaVersion":2,"manifests":[]}"#, Ok(OCI_MANIFEST)),
            // What two readers could understand differently.
            (r#"{"MEDIATYPE":"application/vnd.oci.image.index.v1+json"}"#, Err(Malformed)),
            (r#"{"schemaVersion":1,"Signatures":[]}"#, Err(Malformed)),
            (r#"{"schemaVersion":1,"signatures":[],"signatures":null}"#, Err(Malformed)),
            ("{\"\u{17f}chemaVersion\":1,\"\u{17f}ignatures\":[]}", Err(Malformed)),
            (r#"{"schemaVersion":1,"mediaType":7}"#, Err(Malformed)),
            (r#"{"schemaVersion":"1"}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{}],"config":{}}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{}],"layers":[]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{}],"Config":{}}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{}],"fsLayers":[]}"#, Err(Malformed)),
            (r#"{"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"config":[],"layers":[]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"config":{},"Config":{},"layers":[]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":5}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[1]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"digest":5}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"size":"259"}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"size":1.5}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"urls":"x"}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"annotations":5}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"annotations":{"x":5}}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"urls":[5]}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"platform":{"os.version":5}}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"platform":{"os.features":"x"}}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[{"data":"*"}]}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[],"annotations":5}"#, Err(Malformed)),
            (r#"{"schemaVersion":2,"manifests":[],"subject":5}"#, Err(Malformed)),
            (
                r#"{"schemaVersion":2,"manifests":[{"platform":{"os.features":["x",null]},"annotations":{"a":null},"urls":null}]}"#,
                Ok(OCI_INDEX),
            ),
            (&format!("{{\"schemaVersion\":1,\"x\":{}{}}}", "[".repeat(99), "]".repeat(99)), Err(Malformed)),
        ] {
            assert_eq!(Shape::of(text.as_bytes()).map(|shape| shape.media_type), wanted, "{text}");
        }
    }

    #[test]
    fn a_claimed_type_must_not_contradict_the_bytes() {
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        let image =
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{}},"layers":[]}}"#);
        let typeless = r#"{"manifests":[{}]}"#.to_owned();
        for (bytes, claimed, wanted) in [
            (&index, OCI_INDEX, Ok(Some(OCI_INDEX))),
            (&index, DOCKER_LIST, Ok(Some(DOCKER_LIST))),
            (&index, "", Ok(Some(OCI_INDEX))),
            (&index, "text/plain", Ok(Some(OCI_INDEX))),
            (&index, OCI_MANIFEST, Err(Malformed)),
            (&index, DOCKER_SCHEMA1, Err(Malformed)),
            (&image, OCI_MANIFEST, Ok(None)),
            (&image, "", Ok(None)),
            (&image, OCI_INDEX, Err(Malformed)),
            // Without a type of its own it is what the source says, but never an image.
            (&typeless, OCI_INDEX, Ok(Some(OCI_INDEX))),
            (&typeless, OCI_MANIFEST, Err(Malformed)),
            (&typeless, "", Err(Malformed)),
            (&typeless.replace("{\"m", "{\"schemaVersion\":3,\"m"), "", Err(Malformed)),
            (&typeless.replace("{\"m", "{\"schemaVersion\":1,\"m"), "", Err(Malformed)),
        ] {
            assert_eq!(index_type(bytes.as_bytes(), claimed), wanted, "{bytes} as {claimed}");
        }
    }

    fn schema1(body: &str, extra: &str, signed: &str) -> String {
        let encode = |t: &str| URL_SAFE_NO_PAD.encode(t);
        let protected =
            encode(&format!(r#"{{"formatLength":{},"formatTail":"{}"}}"#, signed.len(), encode("\n}")));
        format!(
            r#"{body}{extra},"signatures":[{{"header":{{"alg":"ES256"}},"signature":"x","protected":"{protected}"}}]}}"#
        )
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
            schema1(body, "", body).replace(r#""alg":"ES256""#, r#""alg":5"#),
            schema1(body, "", body).replace(r#""alg":"ES256""#, r#""alg":"ES256","x5c":"a""#),
            schema1(body, "", body).replace(r#"{"alg":"ES256"}"#, "5"),
            schema1(body, "", body).replace(r#""signature":"x""#, r#""signature":"x","q":1e999"#),
        ] {
            assert_eq!(digest(manifest.as_bytes()), Err(Malformed), "{manifest}");
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
        for evil in [
            format!(r#"{{"manifests":[{}],"Manifests":[{}]}}"#, entry("1", ""), entry("2", "")),
            format!("{{\"manifests\":[{}],\"manife\u{17f}ts\":[{}]}}", entry("1", ""), entry("2", "")),
            format!(r#"{{"manifests":[{}]}}"#, entry("1", &format!(r#","Digest":"{}""#, d("2")))),
            format!(
                r#"{{"manifests":[{}]}}"#,
                entry("1", r#","platform":{"os":"linux","architecture":"amd64","OS":"windows"}"#)
            ),
            format!(
                r#"{{"manifests":[{}]}}"#,
                entry("1", r#","Platform":{"os":"linux","architecture":"amd64"}"#)
            ),
            format!(r#"{{"manifests":[{},null]}}"#, entry("1", "")),
        ] {
            let chosen = choose_instance(evil.as_bytes(), OCI_INDEX, &amd64);
            assert_eq!(chosen, Err(NoInstance::Malformed), "{evil}");
        }
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
