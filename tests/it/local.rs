//! Images on this host: archives, stores of containers-storage, and what of them the policy sees.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use vouchd::config::{Environment, StorageConf, StorageVariables, User};
use vouchd::diagnostic::Code;
use vouchd::digest::Digest;
use vouchd::evaluate::evidence::ManifestEvidence;
use vouchd::fetch::{self, Budget, local};
use vouchd::manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Platform};
use vouchd::reference::{ImageName, ImageReference};

use crate::support::{Gpg, Ran, have, simple_signing, vouchd, write};

const IMAGE: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;

fn resolve(name: &str) -> Result<ImageReference, fetch::Error> {
    local::resolve_in(Path::new("/"), &Environment::system(), ImageName::parse(name).unwrap())
}

fn open_until(name: &str, deadline: Instant) -> Result<local::Image, fetch::Error> {
    let platform = Platform::parse("linux/amd64").unwrap();
    let image = local::Image::open(&resolve(name)?, &platform, &Budget::new(), deadline)?;
    Ok(image.expect("it can be read"))
}

fn open(name: &str) -> Result<local::Image, fetch::Error> {
    open_until(name, Instant::now() + Duration::from_secs(60))
}

fn manifest(name: &str) -> Result<ManifestEvidence, fetch::Error> {
    open(name)?.manifest(None)
}

fn code<T>(result: Result<T, fetch::Error>) -> Option<Code> {
    result.err().map(|error| error.code())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn verdict(policy: &Path, name: &str, options: &[&str]) -> Ran {
    let mut arguments = vec!["verify", "--json", "--policy", policy.to_str().unwrap()];
    arguments.extend(options);
    arguments.push(name);
    vouchd(&arguments)
}

fn skopeo(arguments: &[&str]) -> Ran {
    Ran::from(Command::new("skopeo").args(arguments).output().unwrap())
}

/// A tar file, made by hand so that it can be wrong.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let size = format!("{:011o}\0", content.len());
        self.entry(name, b'0', size.as_bytes(), "", content)
    }

    fn link(self, name: &str, kind: u8, target: &str) -> Self {
        self.entry(name, kind, b"00000000000\0", target, b"")
    }

    /// Records of an extended header, for the next entry or for all.
    fn pax(self, kind: u8, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let length = (0..).find(|length: &usize| length.to_string().len() + rest.len() == *length);
            text += &format!("{}{rest}", length.unwrap());
        }
        let size = format!("{:011o}\0", text.len());
        self.entry("PaxHeaders/x", kind, size.as_bytes(), "", text.as_bytes())
    }

    fn entry(mut self, name: &str, kind: u8, size: &[u8], target: &str, content: &[u8]) -> Self {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(size);
        block[156] = kind;
        block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut block);
        self.0.extend(block);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Puts the checksum into a header.
fn seal(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn blob_name(bytes: &str) -> String {
    format!("blobs/sha256/{}", Digest::sha256(bytes.as_bytes()).hex())
}

fn descriptor(bytes: &str, media_type: &str, rest: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}"{rest}}}"#, Digest::sha256(bytes.as_bytes()))
}

fn index(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
}

/// The index.json of a layout with the one image.
fn only() -> String {
    index(&[descriptor(IMAGE, OCI_MANIFEST, "")])
}

mod directories {
    use super::*;

    // Rule B-6.
    #[test]
    fn a_directory_of_a_later_version_is_refused() {
        let tmp = TempDir::new().unwrap();
        write(tmp.path().join("manifest.json"), IMAGE);
        let name = format!("dir:{}", tmp.path().display());
        assert_eq!(code(manifest(&name)), None);
        for (version, known) in [
            ("Directory Transport Version: 1.1\n", true),
            ("Directory Transport Version: 1.2\n", true),
            ("Directory Transport Version: 0.9\n", true),
            ("Directory Transport Version: 1.3\n", false),
            ("Directory Transport Version: 2.0\n", false),
            ("Directory Transport Version: 1.1", false),
            ("Directory Transport Version: +1.01\n", false),
            ("Directory Transport Version: 99999999999.1\n", false),
            ("", false),
        ] {
            write(tmp.path().join("version"), version);
            let wanted = (!known).then_some(Code::LocalImageInvalid);
            assert_eq!(code(manifest(&name)), wanted, "{version:?}");
        }
    }
}

mod oci_archives {
    use super::*;

    /// What reading the archive gives: the manifest, or a code and what the message contains.
    fn read(bytes: &[u8]) -> Result<String, (Code, String)> {
        let tmp = TempDir::new().unwrap();
        let path = write(tmp.path().join("image.tar"), bytes);
        let found = manifest(&format!("oci-archive:{}", path.display()));
        found
            .map(|evidence| String::from_utf8(evidence.bytes).unwrap())
            .map_err(|error| (error.code(), error.to_string()))
    }

    // Rules B-6, S-10, E-30, E-34.
    #[test]
    fn an_image_is_chosen_as_in_a_layout() {
        let tmp = TempDir::new().unwrap();
        let other = IMAGE.replace("{}", "{ }");
        let named =
            |name: &str| format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#);
        let nested = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
            descriptor(IMAGE, OCI_MANIFEST, r#","platform":{"os":"linux","architecture":"amd64"}"#)
        );
        let json = index(&[
            descriptor(IMAGE, OCI_MANIFEST, &named("v1")),
            descriptor(&other, OCI_MANIFEST, &named("v2")),
            descriptor(&other, "text/plain", &named("text")),
            descriptor(&nested, OCI_INDEX, &named("all")),
        ]);
        let tar = Tar::default()
            .file(&blob_name(IMAGE), IMAGE)
            .file(&blob_name(&other), &other)
            .file(&blob_name(&nested), &nested)
            .file("index.json", json)
            .end();
        let (head, tail) = tar.split_at(700);
        let members = [gzip(head), gzip(tail)].concat();
        for (file, bytes) in [("plain", &tar), ("gzip", &gzip(&tar)), ("members", &members)] {
            let path = write(tmp.path().join(file), bytes);
            let name = |image: &str| format!("oci-archive:{}{image}", path.display());
            let bytes = |image: &str| manifest(&name(image)).map(|e| String::from_utf8(e.bytes).unwrap());
            assert_eq!(bytes(":v1").as_deref(), Ok(IMAGE), "{file}");
            assert_eq!(bytes(":v2").as_deref(), Ok(other.as_str()), "{file}");
            for refused in ["", ":v3", ":text"] {
                assert_eq!(code(manifest(&name(refused))), Some(Code::LocalImageInvalid), "{file} {refused}");
            }
            let all = open(&name(":all")).unwrap();
            assert_eq!(all.manifest(None).unwrap().media_type, OCI_INDEX);
            let instance = Digest::sha256(IMAGE.as_bytes());
            assert_eq!(all.manifest(Some(&instance)).unwrap().bytes, IMAGE.as_bytes());
            assert_eq!((all.signatures(None), all.signatures(Some(&instance))), (Ok(vec![]), Ok(vec![])));
            // The name of the image is no part of the scope, and a number is no name here.
            assert_eq!(resolve(&name(":v1")).unwrap().policy_identity(), path.to_str().unwrap());
            assert!(ImageName::parse(&name(":@0")).is_err());
        }
    }

    /// A header of another kind than [`Tar`] writes.
    fn edited(name: &str, content: &str, edit: impl Fn(&mut [u8])) -> Tar {
        let mut tar = Tar::default().file(name, content);
        edit(&mut tar.0[..512]);
        seal(&mut tar.0[..512]);
        tar
    }

    // Rules S-10, B-6: what two readers could understand differently is refused.
    #[test]
    fn hostile_archives_are_refused() {
        let blob = blob_name(IMAGE);
        let good = || Tar::default().file(&blob, IMAGE);
        let with = |tar: Tar| tar.file("index.json", only()).end();
        let long = format!("{}/{}", "d/".repeat(60), "x");
        let size = only().len();
        let gnu_magic = |block: &mut [u8]| block[257..265].copy_from_slice(b"ustar  \0");
        for (label, tar, wanted) in [
            ("plain", with(good()), Ok(())),
            ("dot", good().file("./index.json", only()).end(), Ok(())),
            (
                "slashes",
                Tar::default().file(&format!(".//{blob}"), IMAGE).file("index.json", only()).end(),
                Ok(()),
            ),
            ("twice", with(good().file("index.json", only())), Err("twice")),
            ("twice, spelled otherwise", with(good().file("./index.json", only())), Err("twice")),
            ("twice, one a link", with(good().link("index.json", b'2', "x")), Err("link")),
            ("blob twice", with(good().file(&blob, "{}")), Err("twice")),
            ("something else twice", with(good().file("x", "").file("x", "")), Ok(())),
            ("absolute", good().file("/index.json", only()).end(), Err("out of the archive")),
            ("parent", good().file("blobs/../index.json", only()).end(), Err("out of the archive")),
            ("parent of something else", with(good().file("../x", "")), Err("out of the archive")),
            ("symbolic link", good().file("x", only()).link("index.json", b'2', "x").end(), Err("link")),
            ("hard link", good().file("x", only()).link("index.json", b'1', "x").end(), Err("link")),
            ("directory", with(good().link("index.json", b'5', "")), Err("no regular file")),
            (
                "file with a slash at the end",
                good().file("index.json/", only()).end(),
                Err("no regular file"),
            ),
            (
                "contiguous file",
                good().entry("index.json", b'7', b"00000000000\0", "", b"").end(),
                Err("no regular"),
            ),
            ("pax name", good().pax(b'x', &[("path", "index.json")]).file("x", only()).end(), Ok(())),
            (
                "pax name elsewhere",
                good().pax(b'x', &[("path", "x")]).file("index.json", only()).end(),
                Err("no such file"),
            ),
            (
                "pax name twice",
                with(good().pax(b'x', &[("path", "a"), ("path", "b")]).file("x", "")),
                Err("two extension"),
            ),
            ("pax name empty", with(good().pax(b'x', &[("path", "")]).file("x", "")), Err("malformed")),
            (
                "pax name with a zero byte",
                with(good().pax(b'x', &[("path", "a\0b")]).file("x", "")),
                Err("malformed"),
            ),
            (
                "pax absolute",
                with(good().pax(b'x', &[("path", "/x")]).file("x", "")),
                Err("out of the archive"),
            ),
            (
                "two pax headers",
                with(good().pax(b'x', &[("path", "a")]).pax(b'x', &[]).file("x", "")),
                Err("two extension"),
            ),
            (
                "two pax headers of the file",
                good().pax(b'x', &[]).pax(b'x', &[]).file("index.json", only()).end(),
                Err("two extension"),
            ),
            (
                "pax size that is the size",
                good().pax(b'x', &[("size", &size.to_string())]).file("index.json", only()).end(),
                Ok(()),
            ),
            (
                "pax size smaller",
                good().pax(b'x', &[("size", "1")]).file("index.json", only()).end(),
                Err("two sizes"),
            ),
            ("pax size larger", with(good().pax(b'x', &[("size", "512")]).file("x", "")), Err("two sizes")),
            (
                "pax size of terabytes",
                with(good().pax(b'x', &[("size", "9999999999999")]).file("x", "")),
                Err("cut off"),
            ),
            (
                "pax size beyond everything",
                with(good().pax(b'x', &[("size", "18446744073709551615")]).file("x", "")),
                Err("too long"),
            ),
            ("pax size negative", with(good().pax(b'x', &[("size", "-1")]).file("x", "")), Err("malformed")),
            ("pax sparse", with(good().pax(b'x', &[("GNU.sparse.major", "1")]).file("x", "")), Err("sparse")),
            ("pax comment", with(good().pax(b'x', &[("comment", "x")]).file("x", "")), Ok(())),
            (
                "pax record too short",
                with(good().entry("p", b'x', b"00000000011\0", "", b"5 a=b\n999")),
                Err("malformed"),
            ),
            (
                "pax that belongs to nothing",
                good().file("index.json", only()).pax(b'x', &[("path", "x")]).end(),
                Err("belongs to no entry"),
            ),
            (
                "global comment",
                with(Tar::default().pax(b'g', &[("comment", "x")]).file(&blob, IMAGE)),
                Ok(()),
            ),
            ("global name", with(good().pax(b'g', &[("path", "index.json")]).file("x", "")), Err("global")),
            ("global size", with(good().pax(b'g', &[("size", "0")])), Err("global")),
            (
                "pax of a megabyte and more",
                with(good().entry("p", b'x', b"00004000001\0", "", &vec![b'x'; 1 << 20 | 1])),
                Err("too long"),
            ),
            (
                "pax of terabytes",
                with(good().entry("p", b'x', b"\x80\0\0\0\0\0\x09\0\0\0\0\0", "", b"")),
                Err("too long"),
            ),
            (
                "long name",
                with(good().entry("L", b'L', b"00000000013\0", "", b"index.json\0").file("x", "")),
                Err("twice"),
            ),
            (
                "long name of the file",
                good().entry("L", b'L', b"00000000013\0", "", b"index.json\0").file("x", only()).end(),
                Ok(()),
            ),
            (
                "two long names",
                with(
                    good()
                        .entry("L", b'L', b"00000000001\0", "", b"a")
                        .entry("L", b'L', b"00000000001\0", "", b"b")
                        .file("x", ""),
                ),
                Err("two extension"),
            ),
            (
                "long name and pax name",
                with(
                    good()
                        .entry("L", b'L', b"00000000001\0", "", b"a")
                        .pax(b'x', &[("path", "b")])
                        .file("x", ""),
                ),
                Err("two long names"),
            ),
            ("sparse", with(good().link("x", b'S', "")), Err("sparse")),
            (
                "link with a size",
                with(good().entry("x", b'1', b"00000001000\0", "y", b"")),
                Err("has a size"),
            ),
            (
                "directory with a size",
                with(good().entry("x", b'5', b"00000001000\0", "", b"")),
                Err("has a size"),
            ),
            ("binary size", with(good().entry("x", b'0', b"\x80\0\0\0\0\0\0\0\0\0\0\x01", "", b"x")), Ok(())),
            ("negative size", with(good().entry("x", b'0', &[0xff; 12], "", b"")), Err("no valid size")),
            (
                "size that is no number",
                with(good().entry("x", b'0', b"0000000008 \0", "", b"")),
                Err("no valid size"),
            ),
            (
                "size beyond the end",
                good().entry("index.json", b'0', b"00000010000\0", "", b"").end(),
                Err("cut off"),
            ),
            (
                "large file",
                good().entry("index.json", b'0', b"00100000000\0", "", b"").end(),
                Err("larger than"),
            ),
            (
                "prefix of another name",
                edited("index.json", &only(), |b| b[345..348].copy_from_slice(b"dir"))
                    .file(&blob, IMAGE)
                    .end(),
                Err("no such file"),
            ),
            ("gnu without prefix", edited("index.json", &only(), gnu_magic).file(&blob, IMAGE).end(), Ok(())),
            (
                "gnu with a time",
                edited("index.json", &only(), |b| {
                    gnu_magic(b);
                    b[345..357].copy_from_slice(b"00000000000\0");
                })
                .file(&blob, IMAGE)
                .end(),
                Ok(()),
            ),
            (
                "gnu with a prefix",
                edited("index.json", &only(), |b| {
                    gnu_magic(b);
                    b[345..348].copy_from_slice(b"dir");
                })
                .file(&blob, IMAGE)
                .end(),
                Err("two names"),
            ),
            (
                "no magic",
                edited("index.json", &only(), |b| b[257..265].fill(0)).file(&blob, IMAGE).end(),
                Ok(()),
            ),
            ("long path", with(good().file(&long[..100], "")), Ok(())),
            ("no end", good().file("index.json", only()).0, Err("cut off")),
            (
                "half an end",
                {
                    let mut t = good().file("index.json", only()).0;
                    t.extend([0; 512]);
                    t
                },
                Ok(()),
            ),
            (
                "more after the end",
                {
                    let mut t = good().file("index.json", only()).0;
                    t.extend([0; 512]);
                    t.extend(with(good()));
                    t
                },
                Err("after the end"),
            ),
            (
                "wrong checksum",
                {
                    let mut t = with(good());
                    t[0] ^= 1;
                    t
                },
                Err("no tar file"),
            ),
            ("text", b"not a tar file at all".to_vec(), Err("cut off")),
            ("zeros", vec![0; 1024], Err("no such file")),
            ("empty", Vec::new(), Err("cut off")),
            ("zstd", b"\x28\xb5\x2f\xfd and so on".to_vec(), Err("compressed with zstd")),
            ("xz", b"\xfd7zXZ\0 and so on".to_vec(), Err("compressed with xz")),
            ("bzip2", b"BZh9 and so on".to_vec(), Err("compressed with bzip2")),
        ] {
            let found = read(&tar);
            match wanted {
                Ok(()) => assert_eq!(found.as_deref(), Ok(IMAGE), "{label}"),
                Err(part) => {
                    let (code, message) = found.expect_err(label);
                    assert!(code == Code::LocalImageInvalid && message.contains(part), "{label}: {message}");
                }
            }
        }
    }

    // Rule B-6.
    #[test]
    fn what_is_cut_off_or_damaged_is_refused() {
        let tar = Tar::default().file(&blob_name(IMAGE), IMAGE).file("index.json", only()).end();
        let packed = gzip(&tar);
        for length in (0..=tar.len() - 1024).step_by(128).chain([tar.len() - 1025, tar.len() - 513]) {
            let complete = length >= tar.len() - 512;
            assert_eq!(read(&tar[..length]).is_ok(), complete, "{length} of {}", tar.len());
        }
        assert!(read(&packed).is_ok());
        for length in 0..packed.len() {
            let (code, _) = read(&packed[..length]).expect_err("it is cut off");
            assert_eq!(code, Code::LocalImageInvalid, "{length}");
        }
        for at in [packed.len() - 1, packed.len() - 5, packed.len() / 2] {
            let mut damaged = packed.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "{at}");
        }
        assert!(read(&[packed.as_slice(), b"garbage"].concat()).is_err());
        // What the index names is what is read.
        let other = Tar::default().file(&blob_name(IMAGE), "{}").file("index.json", only()).end();
        assert_eq!(read(&other).unwrap_err().0, Code::DigestMismatch);
    }

    #[test]
    fn only_a_regular_file_is_an_archive() {
        let tmp = TempDir::new().unwrap();
        let fifo = tmp.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in
            [tmp.path(), &fifo, &tmp.path().join("missing"), Path::new("/dev/zero"), Path::new("/dev/null")]
        {
            for transport in ["oci-archive", "docker-archive"] {
                let name = format!("{transport}:{}", path.display());
                assert_eq!(code(manifest(&name)), Some(Code::LocalImageInvalid), "{name}");
            }
        }
    }

    // Rule T-28.
    #[test]
    fn unpacking_ends_at_the_deadline() {
        let tmp = TempDir::new().unwrap();
        // 16 GiB of zeros behind a header.
        let head = Tar::default().entry("zeros", b'0', b"\x80\0\0\0\0\0\0\x04\0\0\0\0", "", b"").0;
        let mut bomb = gzip(&head);
        let member = gzip(&vec![0; 16 << 20]);
        for _ in 0..1024 {
            bomb.extend(&member);
        }
        let path = write(tmp.path().join("bomb"), bomb);
        let plain = write(tmp.path().join("plain"), Tar::default().file("index.json", only()).end());
        for (transport, path, wait) in [
            ("oci-archive", &path, 300),
            ("docker-archive", &path, 300),
            ("oci-archive", &plain, 0),
            ("docker-archive", &plain, 0),
        ] {
            let start = Instant::now();
            let name = format!("{transport}:{}", path.display());
            let image = open_until(&name, start + Duration::from_millis(wait)).unwrap();
            assert_eq!(code(image.manifest(None)), Some(Code::TimedOut), "{name}");
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        }
    }

    // Rules B-6, E-30.
    #[test]
    fn an_archive_by_skopeo_has_the_digest_that_skopeo_says() {
        if !have(&["skopeo"]) {
            return;
        }
        let image = RealImage::new();
        let path = image.tmp.path().join("oci.tar");
        let name = format!("oci-archive:{}:v1", path.display());
        image.copy_to(&name);
        let raw = skopeo(&["inspect", "--raw", &name]);
        assert_eq!(manifest(&name).unwrap().bytes, raw.stdout.as_bytes());
        write(image.tmp.path().join("oci.tar.gz"), gzip(&fs::read(&path).unwrap()));
        let packed = format!("oci-archive:{}.gz", path.display());
        assert_eq!(manifest(&packed).unwrap().bytes, raw.stdout.as_bytes());
    }
}

/// An image with two layers in `dir:` form, signed if gpg is given.
struct RealImage {
    tmp: TempDir,
    manifest: Vec<u8>,
}

impl RealImage {
    fn new() -> Self {
        let tmp = TempDir::new().unwrap();
        let dir = tmp.path().join("dir");
        let put = |bytes: &[u8]| {
            let digest = Digest::sha256(bytes);
            write(dir.join(digest.hex()), bytes);
            digest
        };
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for name in ["a", "b"] {
            let tar = Tar::default().file(name, name.repeat(2_000)).end();
            let packed = gzip(&tar);
            diff_ids.push(Digest::sha256(&tar).to_string());
            layers.push(json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": packed.len(), "digest": put(&packed).to_string(),
            }));
        }
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [{ "created": "2020-01-01T00:00:00Z" }, { "created": "2020-01-01T00:00:00Z" }],
        });
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": put(config.as_bytes()).to_string(),
            },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        write(dir.join("manifest.json"), &manifest);
        write(dir.join("version"), "Directory Transport Version: 1.1\n");
        Self { tmp, manifest }
    }

    fn dir(&self) -> PathBuf {
        self.tmp.path().join("dir")
    }

    fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    fn copy_to(&self, name: &str) {
        let from = format!("dir:{}", self.dir().display());
        let ran = skopeo(&["--insecure-policy", "copy", &from, name]);
        assert_eq!(ran.exit, 0, "{ran:?}");
    }
}

mod docker_archives {
    use super::*;

    /// manifest.json, configuration and layers as they go into an archive.
    struct Parts {
        tags: Value,
        layers: Vec<(String, Vec<u8>)>,
        diff_ids: Value,
    }

    impl Parts {
        fn new() -> Self {
            let layers =
                vec![("a.tar".to_owned(), vec![b'a'; 700]), ("b/layer.tar".to_owned(), vec![b'b'; 3])];
            let diff_ids = layers.iter().map(|(_, bytes)| Digest::sha256(bytes).to_string()).collect();
            Self { tags: json!(["q.io/a/b:1"]), layers, diff_ids }
        }

        fn config(&self) -> String {
            json!({ "rootfs": { "type": "layers", "diff_ids": self.diff_ids } }).to_string()
        }

        fn item(&self) -> Value {
            let layers: Vec<_> = self.layers.iter().map(|(name, _)| name).collect();
            json!({ "Config": "config.json", "RepoTags": self.tags, "Layers": layers })
        }

        fn tar(&self) -> Tar {
            let layers = self.layers.iter().fold(Tar::default(), |tar, (name, bytes)| tar.file(name, bytes));
            layers.file("config.json", self.config())
        }

        fn end(&self) -> Vec<u8> {
            self.tar().file("manifest.json", json!([self.item()]).to_string()).end()
        }
    }

    fn expected(config: &str, layers: &[(usize, &Value)]) -> String {
        let layers: Vec<String> = layers
            .iter()
            .map(|(size, digest)| {
                format!(
                    r#"{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{size},"digest":{digest}}}"#
                )
            })
            .collect();
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{}"}},"layers":[{}]}}"#,
            config.len(),
            Digest::sha256(config.as_bytes()),
            layers.join(",")
        )
    }

    fn read_as(bytes: &[u8], image: &str) -> Result<String, fetch::Error> {
        let tmp = TempDir::new().unwrap();
        let path = write(tmp.path().join("image.tar"), bytes);
        let found = open(&format!("docker-archive:{}{image}", path.display()))?;
        assert_eq!(found.signatures(None), Ok(Vec::new()));
        assert!(found.manifest(Some(&Digest::sha256(b""))).is_err());
        let evidence = found.manifest(None)?;
        assert_eq!(evidence.media_type, DOCKER_MANIFEST);
        Ok(String::from_utf8(evidence.bytes).unwrap())
    }

    // Rules S-7, B-6.
    #[test]
    fn the_manifest_is_made_of_configuration_and_layers() {
        let parts = Parts::new();
        let ids = &parts.diff_ids;
        let wanted = expected(&parts.config(), &[(700, &ids[0]), (3, &ids[1])]);
        for image in ["", ":q.io/a/b:1", ":@0"] {
            assert_eq!(read_as(&parts.end(), image).as_ref(), Ok(&wanted), "{image}");
            assert_eq!(read_as(&gzip(&parts.end()), image).as_ref(), Ok(&wanted), "{image}");
        }
        for image in [":q.io/a/b", ":@1", ":q.io/a/b:2"] {
            assert_eq!(code(read_as(&parts.end(), image)), Some(Code::LocalImageInvalid), "{image}");
        }

        // A layer that is compressed counts with its unpacked length.
        let mut packed = Parts::new();
        packed.layers[0].1 = [gzip(&[b'a'; 600]), gzip(&[b'a'; 100])].concat();
        assert_eq!(read_as(&packed.end(), "").as_ref(), Ok(&wanted));

        // A layer may be used twice; its other names do not matter.
        let mut twice = Parts::new();
        twice.diff_ids = json!([ids[0], ids[1], ids[0]]);
        let item = json!({ "Config": "./config.json", "Layers": ["./a.tar", "b//layer.tar", "c.tar"] });
        let tar = twice.tar().file("manifest.json", json!([item]).to_string()).end();
        let wanted = expected(&twice.config(), &[(700, &ids[0]), (3, &ids[1]), (700, &ids[0])]);
        assert_eq!(read_as(&tar, "").as_ref(), Ok(&wanted));

        // In a file with several images "docker save" makes links, which the reference takes for empty.
        let parts = Parts::new();
        let item = json!({ "Config": "config.json", "Layers": ["a.tar", "c/layer.tar"] });
        let tar = parts.tar().link("c/layer.tar", b'2', "../b/layer.tar");
        let tar = tar.file("manifest.json", json!([item]).to_string()).end();
        let wanted = expected(&parts.config(), &[(700, &ids[0]), (0, &ids[1])]);
        assert_eq!(read_as(&tar, "").as_ref(), Ok(&wanted));

        let mut empty = Parts::new();
        (empty.layers, empty.diff_ids, empty.tags) = (Vec::new(), json!([]), Value::Null);
        assert_eq!(read_as(&empty.end(), ""), Ok(expected(&empty.config(), &[])));
    }

    // Rule S-7.
    #[test]
    fn one_image_of_several_must_be_named() {
        let parts = Parts::new();
        let mut other = parts.item();
        other["RepoTags"] = json!(["busybox:1", "q.io/a/c:2"]);
        let tar = parts.tar().file("manifest.json", json!([parts.item(), other]).to_string()).end();
        for (image, ok) in [
            ("", false),
            (":@0", true),
            (":@1", true),
            (":@2", false),
            (":q.io/a/b:1", true),
            (":docker.io/library/busybox:1", true),
            (":busybox:1", true),
            (":busybox:2", false),
        ] {
            assert_eq!(read_as(&tar, image).is_ok(), ok, "{image}");
        }
        let doubled =
            parts.tar().file("manifest.json", json!([parts.item(), parts.item()]).to_string()).end();
        assert!(read_as(&doubled, ":q.io/a/b:1").unwrap_err().to_string().contains("several images"));
        let mut broken = parts.item();
        broken["RepoTags"] = json!(["UPPER:1"]);
        let tar = parts.tar().file("manifest.json", json!([parts.item(), broken]).to_string()).end();
        assert!(read_as(&tar, ":q.io/a/b:1").unwrap_err().to_string().contains("tag"));
        assert!(read_as(&tar, ":@0").is_ok());
    }

    // Rule S-7.
    #[test]
    fn damaged_archives_are_refused() {
        let good = Parts::new();
        let json = |item: Value| good.tar().file("manifest.json", json!([item]).to_string()).end();
        let edit = |name: &str, value: Value| {
            let mut item = good.item();
            item[name] = value;
            json(item)
        };
        let ids = |ids: Value| {
            let mut parts = Parts::new();
            parts.diff_ids = ids;
            parts.end()
        };
        let layer = |bytes: &[u8]| {
            let mut parts = Parts::new();
            parts.layers[1].1 = bytes.to_vec();
            parts.end()
        };
        let text = |config: &str| {
            let tar = Tar::default().file("a.tar", "").file("b/layer.tar", "").file("config.json", config);
            tar.file("manifest.json", json!([good.item()]).to_string()).end()
        };
        let item = json!([good.item()]).to_string();
        let id = good.diff_ids[0].clone();
        let bare = || Tar::default().file("a.tar", "").file("config.json", good.config());
        for (label, tar, part) in [
            ("nothing", Tar::default().end(), "no such file"),
            ("no JSON", good.tar().file("manifest.json", "").end(), "value was expected"),
            ("no array", good.tar().file("manifest.json", "{}").end(), "no array"),
            ("empty", good.tar().file("manifest.json", "[]").end(), "is empty"),
            ("no object", good.tar().file("manifest.json", "[1]").end(), "no object"),
            (
                "large",
                good.tar().file("manifest.json", format!("{item}{}", " ".repeat(1 << 20))).end(),
                "larger",
            ),
            (
                "manifest.json twice",
                good.tar().file("manifest.json", &item).file("./manifest.json", &item).end(),
                "twice",
            ),
            ("manifest.json is a link", good.tar().link("manifest.json", b'2', "x").end(), "link"),
            ("no Config", edit("Config", Value::Null), "Config"),
            ("Config of another type", edit("Config", json!(1)), "Config"),
            ("Config absent", edit("Config", json!("x.json")), "no such file"),
            ("Config leads out", edit("Config", json!("../config.json")), "no such file"),
            ("Config is absolute", edit("Config", json!("/config.json")), "no such file"),
            ("Config misspelled", edit("config", json!("config.json")), "misspelled"),
            ("Layers of another type", edit("Layers", json!("a.tar")), "no array"),
            ("a layer too few", edit("Layers", json!(["a.tar"])), "not as many"),
            ("a layer that is absent", edit("Layers", json!(["a.tar", "c.tar"])), "no such layer"),
            ("one file for two layers", edit("Layers", json!(["a.tar", "./a.tar"])), "two different layers"),
            ("digest that is none", ids(json!([id, "x"])), "no digest"),
            ("diff_ids of another type", ids(json!(1)), "no array"),
            ("diff_ids absent", ids(Value::Null), "not as many"),
            ("configuration without rootfs", text("{}"), "rootfs"),
            ("configuration that is no JSON", text("x"), "value was expected"),
            (
                "rootfs twice",
                text(&good.config().replace("{\"rootfs\"", "{\"Rootfs\":{},\"rootfs\"")),
                "twice",
            ),
            ("layer packed with zstd", layer(b"\x28\xb5\x2f\xfd and so on"), "compressed with zstd"),
            ("layer packed and cut off", layer(&gzip(b"abc")[..15]), "cannot read"),
            (
                "layer is a directory",
                bare().link("b/layer.tar", b'5', "").file("manifest.json", &item).end(),
                "no regular",
            ),
            ("layer twice", good.tar().file("a.tar", "").file("manifest.json", &item).end(), "twice"),
        ] {
            let error = read_as(&tar, "").expect_err(label);
            assert_eq!(error.code(), Code::LocalImageInvalid, "{label}: {error}");
            assert!(error.to_string().contains(part), "{label}: {error}");
        }
    }

    // Rules S-7, B-6: the reference makes the same manifest.
    #[test]
    fn the_manifest_is_the_one_that_skopeo_makes() {
        if !have(&["skopeo"]) {
            return;
        }
        let image = RealImage::new();
        let path = image.tmp.path().join("docker.tar");
        image.copy_to(&format!("docker-archive:{}:q.io/a/b:1", path.display()));
        let packed = write(image.tmp.path().join("packed.tar.gz"), gzip(&fs::read(&path).unwrap()));
        let parts = Parts::new();
        let mut layer = Parts::new();
        layer.layers[0].1 = gzip(&[b'a'; 700]);
        let linked = json!([{ "Config": "config.json", "Layers": ["a.tar", "c/layer.tar"] }]).to_string();
        let linked = parts.tar().link("c/layer.tar", b'2', "../b/layer.tar").file("manifest.json", linked);
        let mut empty = Parts::new();
        (empty.layers, empty.diff_ids) = (Vec::new(), json!([]));
        for (name, tar) in [
            ("plain.tar", parts.end()),
            ("layer.tar", layer.end()),
            ("linked.tar", linked.end()),
            ("empty.tar", empty.end()),
        ] {
            write(image.tmp.path().join(name), tar);
        }
        for file in ["docker.tar", "plain.tar", "layer.tar", "linked.tar", "empty.tar"] {
            let name = format!("docker-archive:{}", image.tmp.path().join(file).display());
            let raw = skopeo(&["inspect", "--raw", &name]);
            assert_eq!(raw.exit, 0, "{name}: {raw:?}");
            assert_eq!(String::from_utf8(manifest(&name).unwrap().bytes).unwrap(), raw.stdout, "{name}");
        }
        // The installed skopeo may be one that cannot read such an archive.
        let [plain, packed] =
            [&path, &packed].map(|path| manifest(&format!("docker-archive:{}", path.display())).unwrap());
        assert_eq!(plain, packed);
    }
}

mod stores {
    use super::*;

    /// A signature as far as rule B-3 looks.
    const BLOB: &[u8] = &[0x90, 1, 2, 3];

    /// A store made by hand.
    struct Store {
        tmp: TempDir,
        records: Vec<Value>,
    }

    fn sha256(text: &str) -> String {
        Digest::sha256(text.as_bytes()).to_string()
    }

    fn file_name(name: &str) -> String {
        if name.contains('-') { format!("={}", STANDARD.encode(name)) } else { name.to_owned() }
    }

    impl Store {
        fn new() -> Self {
            Self { tmp: TempDir::new().unwrap(), records: Vec::new() }
        }

        fn images(&self) -> PathBuf {
            self.tmp.path().join("vfs-images")
        }

        fn data(&self, id: &str, name: &str) -> PathBuf {
            self.images().join(id).join(file_name(name))
        }

        /// Adds an image with these manifests; the last one is the one without a digest.
        fn add(&mut self, id: &str, names: &[&str], manifests: &[&str]) -> &mut Value {
            let mut digests = BTreeMap::new();
            for manifest in manifests {
                for name in [format!("manifest-{}", sha256(manifest)), "manifest".to_owned()] {
                    write(self.data(id, &name), manifest);
                    digests.insert(name, sha256(manifest));
                }
            }
            self.records.push(json!({ "id": id, "names": names, "big-data-digests": digests }));
            self.records.last_mut().unwrap()
        }

        fn save(&self) -> &Self {
            write(self.images().join("images.json"), json!(self.records).to_string());
            self
        }

        fn name(&self, image: &str) -> String {
            format!("containers-storage:[vfs@{}]{image}", self.tmp.path().display())
        }

        fn read(&self, image: &str) -> Result<String, fetch::Error> {
            manifest(&self.name(image)).map(|evidence| String::from_utf8(evidence.bytes).unwrap())
        }

        fn signatures(&self, image: &str, instance: Option<&str>) -> Result<usize, fetch::Error> {
            let instance = instance.map(|digest| Digest::parse(digest).unwrap());
            open(&self.name(image))?.signatures(instance.as_ref()).map(|signatures| signatures.len())
        }
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn image(text: &str) -> String {
        IMAGE.replace("{}", &format!(r#"{{"x":"{text}"}}"#))
    }

    // Rules S-11, S-12, S-14, E-20.
    #[test]
    fn images_are_found_by_name_digest_and_id() {
        let mut store = Store::new();
        let (one, two) = (image("1"), image("2"));
        let (d1, d2) = (sha256(&one), sha256(&two));
        store.add(&id('a'), &["q.io/a/b:1", "docker.io/library/busybox:latest"], &[&one]);
        store.add(&id('b'), &[&format!("q.io/a/b@{d2}")], &[&two]);
        store.save();
        let [a, b] = ['a', 'b'].map(id);
        for (name, wanted) in [
            ("q.io/a/b:1", Some(&one)),
            ("busybox", Some(&one)),
            ("busybox:1", None),
            ("q.io/a/b:2", None),
            (&format!("q.io/a/b@{d2}"), Some(&two)),
            (&format!("q.io/a/b@{d1}"), Some(&one)),
            (&format!("q.io/a/c@{d1}"), None),
            (&format!("busybox@{d1}"), Some(&one)),
            (&format!("busybox@{d2}"), None),
            (&format!("@{a}"), Some(&one)),
            (&format!("@{b}"), Some(&two)),
            (&format!("@{}", id('c')), None),
            (&format!("q.io/a/b@{a}"), Some(&one)),
            (&format!("q.io/a/b:77@{a}"), Some(&one)),
            (&format!("q.io/a/c:1@{a}"), None),
            (&format!("q.io/a/b@{d1}@{a}"), Some(&one)),
            (&a, Some(&one)),
            (&b[..12], Some(&two)),
            ("aaa", Some(&one)),
            ("@aaa", Some(&one)),
            ("q.io/a/b:9@bbb", Some(&two)),
        ] {
            assert_eq!(store.read(name).ok().as_ref(), wanted, "{name}");
        }
        // A name that pins a manifest is not satisfied with another; the judgement compares.
        assert_eq!(store.read(&format!("q.io/a/b@{d2}@{a}")).ok(), Some(one));
    }

    // Rules S-12, T-28.
    #[test]
    fn images_of_one_digest_are_not_looked_at_without_end() {
        let mut store = Store::new();
        let text = image("1");
        for number in 0..128 {
            store.add(&format!("{number:064}"), &[&format!("q.io/a/b:{number}")], &[&text]);
        }
        store.save();
        let name = format!("q.io/a/b@{}", sha256(&text));
        assert_eq!(store.read(&name), Ok(text.clone()));
        store.add(&id('f'), &["q.io/a/b:x"], &[&text]);
        store.save();
        assert_eq!(code(store.read(&name)), Some(Code::LocalImageInvalid));
        assert_eq!(store.read("q.io/a/b:x"), Ok(text));
    }

    // Rules S-12, S-14.
    #[test]
    fn part_of_an_id_is_a_name_unless_an_image_has_it() {
        let mut store = Store::new();
        store.add(&id('a'), &["docker.io/library/abc:latest"], &[&image("1")]);
        store.add(&format!("abc{}", &id('1')[3..]), &["q.io/x:1"], &[&image("2")]);
        store.add(&format!("abd{}", &id('1')[3..]), &["q.io/y:1"], &[&image("3")]);
        store.save();
        let root = store.tmp.path().to_str().unwrap().to_owned();
        let identity = |image: &str| {
            resolve(&store.name(image)).map(|image| image.policy_identity().replace(&root, "ROOT"))
        };
        assert_eq!(identity("abc"), Ok(format!("[vfs@ROOT]@abc{}", &id('1')[3..])));
        assert_eq!(resolve(&store.name("abc")).unwrap().docker_reference(), None);
        for name in ["ab", "abcd", "abc:1"] {
            assert!(identity(name).unwrap().starts_with("[vfs@ROOT]docker.io/library/ab"), "{name}");
        }
        // Two images begin so: it is no ID.
        assert_eq!(identity("ab1"), Ok("[vfs@ROOT]docker.io/library/ab1:latest".to_owned()));
        for name in ["@abcd", "@ab1", &id('c')] {
            assert_eq!(code(identity(name)), Some(Code::LocalImageInvalid), "{name}");
        }
        for name in ["@ab", "@abg", "@ABC", "@", "x@"] {
            assert!(ImageName::parse(&store.name(name)).is_err(), "{name}");
        }
    }

    // Rules S-12, S-20: so says skopeo 1.9.3.
    #[test]
    fn a_scope_with_the_id_counts_for_a_name_without_it() {
        let mut store = Store::new();
        let (one, two) = (image("1"), image("2"));
        store.add(&id('a'), &["q.io/a/b:1"], &[&one]);
        store.add(&id('b'), &["q.io/a/b:2"], &[&two]);
        store.save();
        let root = format!("[vfs@{}]", store.tmp.path().display());
        let policy = |name: &str, scope: &str, own: &str, other: &str| {
            let requirement = |kind: &str| json!([{ "type": kind }]);
            let scopes = json!({ format!("{root}{scope}"): requirement(own) });
            let text = json!({
                "default": requirement(other),
                "transports": { "containers-storage": scopes },
            });
            write(store.tmp.path().join(name), text.to_string())
        };
        let scope = format!("q.io/a/b:1@{}", id('a'));
        let refusing = policy("refusing", &scope, "reject", "insecureAcceptAnything");
        let accepting = policy("accepting", &scope, "insecureAcceptAnything", "reject");
        let digest = format!("q.io/a/b@{}", sha256(&one));
        let by_digest =
            policy("digest", &format!("{digest}@{}", id('a')), "reject", "insecureAcceptAnything");
        for (policy, image, wanted) in [
            (&refusing, "q.io/a/b:1", 1),
            (&refusing, &format!("q.io/a/b:1@{}", id('a')), 1),
            (&refusing, "q.io/a/b:2", 0),
            (&accepting, "q.io/a/b:1", 0),
            (&accepting, "q.io/a/b:2", 1),
            (&by_digest, &digest, 1),
            (&by_digest, "q.io/a/b:1", 0),
        ] {
            assert_eq!(verdict(policy, &store.name(image), &[]).exit, wanted, "{} {image}", policy.display());
        }
        // What has the name later is not what the scope is for.
        let platform = Platform::parse("linux/amd64").unwrap();
        let known = local::identify(resolve(&store.name("q.io/a/b:1")).unwrap(), &platform).unwrap();
        let opened = || {
            let deadline = Instant::now() + Duration::from_secs(60);
            local::Image::open(&known, &platform, &Budget::new(), deadline).map(|_| ())
        };
        assert_eq!(opened(), Ok(()));
        store.records[1]["names"] = json!(["q.io/a/b:1"]);
        store.records[0]["names"] = json!([]);
        store.save();
        assert_eq!(code(opened()), Some(Code::LocalImageInvalid));
    }

    // Rules E-20, E-30, E-34.
    #[test]
    fn an_index_leads_to_the_instance_for_the_platform() {
        let mut store = Store::new();
        let (amd64, arm64) = (image("amd64"), image("arm64"));
        let entry = |image: &str, architecture: &str| {
            let platform = format!(r#","platform":{{"os":"linux","architecture":"{architecture}"}}"#);
            descriptor(image, OCI_MANIFEST, &platform)
        };
        let list = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{},{}]}}"#,
            entry(&amd64, "amd64"),
            entry(&arm64, "arm64")
        );
        let digest = sha256(&list);
        for (digit, instance) in [('a', &arm64), ('b', &amd64), ('c', &arm64)] {
            store.add(&id(digit), &[&format!("q.io/a/b:{digit}")], &[&list, instance]);
        }
        store.save();
        let found = open(&store.name(&format!("q.io/a/b@{digest}"))).unwrap();
        assert!(found.path().ends_with(&id('b')), "{}", found.path());
        assert_eq!(found.manifest(None).unwrap().bytes, list.as_bytes());
        let instance = Digest::parse(&sha256(&amd64)).unwrap();
        assert_eq!(found.manifest(Some(&instance)).unwrap().bytes, amd64.as_bytes());
        let other = Digest::parse(&sha256(&arm64)).unwrap();
        assert_eq!(code(found.manifest(Some(&other))), Some(Code::LocalImageInvalid));
        assert_eq!(store.read("q.io/a/b:b"), Ok(amd64));
        let policy =
            write(store.tmp.path().join("any.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
        let name = store.name(&format!("q.io/a/b@{digest}"));
        let ran = verdict(&policy, &name, &["--platform", "linux/amd64", "--subject", "instance"]);
        let report = ran.json();
        assert_eq!((ran.exit, &report["instance-digest"]), (0, &json!(instance.to_string())), "{ran:?}");
    }

    // Rules E-20, E-22: what the store has must be what it says.
    #[test]
    fn a_tampered_store_is_never_accepted() {
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        let (good, evil) = (image("good"), image("evil"));
        let (digest, wrong) = (sha256(&good), sha256(&evil));
        let by_digest = format!("q.io/a/b@{digest}");
        let keyed = format!("manifest-{digest}");
        let (a, name) = (id('a'), "q.io/a/b:1");
        type Edit<'e> = &'e dyn Fn(&mut Store);
        let cases: &[(&str, &str, Edit<'_>, Code)] = &[
            ("manifest", name, &|s| drop(write(s.data(&a, "manifest"), &evil)), Code::DigestMismatch),
            (
                "manifest of the digest",
                &by_digest,
                &|s| drop(write(s.data(&a, &keyed), &evil)),
                Code::DigestMismatch,
            ),
            (
                "digest",
                name,
                &|s| s.records[0]["big-data-digests"]["manifest"] = json!(wrong),
                Code::DigestMismatch,
            ),
            ("no digest", name, &|s| s.records[0]["big-data-digests"] = json!({}), Code::LocalImageInvalid),
            (
                "digest that is none",
                name,
                &|s| s.records[0]["big-data-digests"]["x"] = json!("md5:1"),
                Code::LocalImageInvalid,
            ),
            (
                "no manifest",
                name,
                &|s| fs::remove_file(s.data(&a, "manifest")).unwrap(),
                Code::LocalImageInvalid,
            ),
            (
                "manifest is a directory",
                name,
                &|s| {
                    fs::remove_file(s.data(&a, "manifest")).unwrap();
                    fs::create_dir(s.data(&a, "manifest")).unwrap();
                },
                Code::LocalImageInvalid,
            ),
            (
                "large manifest",
                name,
                &|s| drop(write(s.data(&a, "manifest"), vec![b' '; (4 << 20) + 1])),
                Code::LocalImageInvalid,
            ),
            (
                "two images of one name",
                name,
                &|s| _ = s.add(&id('b'), &[name], &[&evil]),
                Code::LocalImageInvalid,
            ),
            (
                "two images of one ID",
                name,
                &|s| s.records.push(s.records[0].clone()),
                Code::LocalImageInvalid,
            ),
            (
                "ID that leads elsewhere",
                name,
                &|s| s.records[0]["id"] = json!("../x"),
                Code::LocalImageInvalid,
            ),
            ("ID that is no text", name, &|s| s.records[0]["id"] = json!(1), Code::LocalImageInvalid),
            ("names that are none", name, &|s| s.records[0]["names"] = json!([1]), Code::LocalImageInvalid),
            ("name in another case", name, &|s| s.records[0]["Names"] = json!([]), Code::LocalImageInvalid),
            ("null", name, &|s| s.records.push(Value::Null), Code::LocalImageInvalid),
        ];
        for (label, name, edit, wanted) in cases {
            let mut store = Store::new();
            store.add(&a, &["q.io/a/b:1"], &[&good]);
            let path = write(store.tmp.path().join("policy.json"), policy);
            store.save();
            let full = store.name(name);
            assert_eq!(verdict(&path, &full, &[]).exit, 0, "{label}");
            edit(&mut store);
            store.save();
            let ran = verdict(&path, &full, &[]);
            assert_eq!(ran.code(), (3, wanted.as_str().to_owned()), "{label}: {ran:?}");
        }
        for text in ["", "[]", "null", "{}", "[", "[{}]"] {
            let store = Store::new();
            write(store.images().join("images.json"), text);
            assert_eq!(code(store.read("q.io/a/b:1")), Some(Code::LocalImageInvalid), "{text}");
        }
        // Without the manifest of its digest the other is no substitute (rule E-20).
        let mut store = Store::new();
        store.add(&a, &["q.io/a/b:1", &by_digest], &[&evil]);
        store.save();
        let path = write(store.tmp.path().join("policy.json"), policy);
        assert_eq!(verdict(&path, &store.name(&by_digest), &[]).code(), (1, "digest-mismatch".to_owned()));
    }

    // Rules B-1 to B-3, B-5, B-6.
    #[test]
    fn signatures_are_cut_by_their_sizes() {
        let manifest = image("1");
        let digest = sha256(&manifest);
        let key = format!("signature-{}", digest.trim_start_matches("sha256:"));
        let blobs = |parts: &[&[u8]]| parts.concat();
        for (metadata, own, of_instance, wanted) in [
            ("", None, None, (Ok(0), Ok(0))),
            ("{}", None, None, (Ok(0), Ok(0))),
            (r#"{"signature-sizes":[4,4]}"#, Some(blobs(&[BLOB, BLOB])), None, (Ok(2), Ok(0))),
            (r#"{"signature-sizes":[]}"#, Some(blobs(&[BLOB])), None, (Ok(0), Ok(0))),
            (r#"{"signatures-sizes":{"DIGEST":[4]}}"#, None, Some(BLOB.to_vec()), (Ok(0), Ok(1))),
            (r#"{"signatures-sizes":{"DIGEST":[]}}"#, None, None, (Ok(0), Ok(0))),
            (r#"{"signature-sizes":[4]}"#, None, None, (Err(Code::LocalImageInvalid), Ok(0))),
            (
                r#"{"signature-sizes":[4]}"#,
                Some(blobs(&[BLOB, BLOB])),
                None,
                (Err(Code::LocalImageInvalid), Ok(0)),
            ),
            (
                r#"{"signature-sizes":[4,4]}"#,
                Some(blobs(&[BLOB])),
                None,
                (Err(Code::LocalImageInvalid), Ok(0)),
            ),
            (r#"{"signature-sizes":[3]}"#, Some(blobs(&[BLOB])), None, (Err(Code::LocalImageInvalid), Ok(0))),
            (
                r#"{"signature-sizes":[-4]}"#,
                Some(blobs(&[BLOB])),
                None,
                (Err(Code::LocalImageInvalid), Ok(0)),
            ),
            (
                r#"{"signature-sizes":[4.0]}"#,
                Some(blobs(&[BLOB])),
                None,
                (Err(Code::LocalImageInvalid), Ok(0)),
            ),
            (r#"{"signature-sizes":4}"#, Some(blobs(&[BLOB])), None, (Err(Code::LocalImageInvalid), Ok(0))),
            (
                r#"{"signature-sizes":[4194305]}"#,
                Some(vec![0x90; 4_194_305]),
                None,
                (Err(Code::LocalImageInvalid), Ok(0)),
            ),
            (
                r#"{"signature-sizes":[0,4]}"#,
                Some(blobs(&[BLOB])),
                None,
                (Err(Code::MalformedSignature), Ok(0)),
            ),
            (
                r#"{"signature-sizes":[4,5]}"#,
                Some(blobs(&[BLOB, b"<html"])),
                None,
                (Err(Code::MalformedSignature), Ok(0)),
            ),
            (
                r#"{"signature-sizes":[4],"Signature-Sizes":[]}"#,
                Some(blobs(&[BLOB])),
                None,
                (Err(Code::LocalImageInvalid), Err(Code::LocalImageInvalid)),
            ),
            ("[]", None, None, (Err(Code::LocalImageInvalid), Err(Code::LocalImageInvalid))),
            ("x", None, None, (Err(Code::LocalImageInvalid), Err(Code::LocalImageInvalid))),
        ] {
            let mut store = Store::new();
            store.add(&id('a'), &["q.io/a/b:1"], &[&manifest])["metadata"] =
                json!(metadata.replace("DIGEST", &digest));
            store.save();
            for (name, bytes) in [("signatures", own), (&key, of_instance)] {
                if let Some(bytes) = bytes {
                    write(store.data(&id('a'), name), bytes);
                }
            }
            let found = [None, Some(digest.as_str())]
                .map(|instance| store.signatures("q.io/a/b:1", instance).map_err(|error| error.code()));
            assert_eq!(found, [wanted.0, wanted.1], "{metadata}");
        }
        let mut store = Store::new();
        let sizes = vec![4; 128];
        store.add(&id('a'), &["q.io/a/b:1"], &[&manifest])["metadata"] =
            json!(json!({ "signature-sizes": sizes }).to_string());
        write(store.data(&id('a'), "signatures"), BLOB.repeat(128));
        assert_eq!(code(store.save().signatures("q.io/a/b:1", None)), Some(Code::LocalImageInvalid));
    }

    // Rule S-12.
    #[test]
    fn additional_stores_are_searched_after_the_own_one() {
        let (mut own, mut first, mut second) = (Store::new(), Store::new(), Store::new());
        own.add(&id('a'), &["q.io/a:1"], &[&image("own")]);
        first.add(&id('a'), &["q.io/b:1", "q.io/a:1"], &[&image("own")]);
        first.add(&id('b'), &["q.io/c:1", "q.io/a:1"], &[&image("first")]);
        second.add(&id('c'), &["q.io/c:1", "q.io/d:1"], &[&image("second")]);
        for store in [&own, &first, &second] {
            store.save();
        }
        let path = |store: &Store| store.tmp.path().display().to_string();
        let spec = format!(
            "vfs@{}+/run:vfs.imagestore={},mountopt=nodev,additionalimagestore={}",
            path(&own),
            path(&first),
            path(&second)
        );
        let read = |name: &str, spec: &str| {
            let found = manifest(&format!("containers-storage:[{spec}]{name}"));
            found.map(|evidence| String::from_utf8(evidence.bytes).unwrap()).ok()
        };
        for (name, wanted) in [
            ("q.io/a:1", Some("own")),
            // The image has a record of its own in the first store, where it lost this name.
            ("q.io/b:1", None),
            ("q.io/c:1", Some("first")),
            ("q.io/d:1", Some("second")),
            ("q.io/e:1", None),
            ("bbb", Some("first")),
        ] {
            assert_eq!(read(name, &spec), wanted.map(image), "{name}");
        }
        // One that is not there could hide another image of the same name.
        assert_eq!(read("q.io/a:1", &format!("vfs@{}:imagestore=/no/such", path(&own))), None);
        // The data of a record may be in another store.
        fs::remove_dir_all(own.images().join(id('a'))).unwrap();
        write(first.data(&id('a'), "manifest"), image("own"));
        assert_eq!(read("q.io/a:1", &spec), Some(image("own")));
    }

    // Rules S-11, S-12.
    #[test]
    fn the_driver_is_the_one_that_has_a_directory() {
        for (directories, wanted) in [
            (&[][..], Some("overlay")),
            (&["overlay"], Some("overlay")),
            (&["btrfs"], Some("btrfs")),
            (&["vfs"], Some("overlay")),
            (&["overlay", "vfs"], None),
            (&["overlay", "btrfs"], None),
        ] {
            let tmp = TempDir::new().unwrap();
            for directory in directories {
                fs::create_dir(tmp.path().join(directory)).unwrap();
            }
            let root = tmp.path().display();
            let found = resolve(&format!("containers-storage:[{root}]q.io/a:1"));
            let identity = found.ok().map(|image| image.policy_identity().to_owned());
            assert_eq!(
                identity,
                wanted.map(|driver| format!("[{driver}@{root}]q.io/a:1")),
                "{directories:?}"
            );
        }
        for (name, wanted) in
            [("[overlay2@/x]q.io/a:1", Some("[overlay@/x]q.io/a:1")), ("[../overlay@/x]q.io/a:1", None)]
        {
            let found = resolve(&format!("containers-storage:{name}"));
            assert_eq!(found.ok().as_ref().map(ImageReference::policy_identity), wanted, "{name}");
        }
    }

    /// Every file with what would show that it was touched.
    fn snapshot(directory: &Path, into: &mut BTreeMap<PathBuf, (u64, SystemTime, i64)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let identity = (metadata.len(), metadata.modified().unwrap(), metadata.ctime_nsec());
            into.insert(entry.path(), identity);
            if metadata.is_dir() {
                snapshot(&entry.path(), into);
            }
        }
    }

    // Rules B-6, E-20, E-30, S-12, I-4: verdicts of skopeo on a store that skopeo made.
    #[test]
    fn a_store_by_skopeo_is_judged_as_by_skopeo() {
        if !have(&["skopeo", "gpg"]) {
            return;
        }
        let image = RealImage::new();
        let gpg = Gpg::new();
        gpg.run(&["--quick-gen-key", "a@x.example", "ed25519", "sign", "never"], b"");
        gpg.run(&["--quick-gen-key", "b@x.example", "ed25519", "sign", "never"], b"");
        let tmp = image.tmp.path();
        let digest = image.digest().to_string();
        let signature = gpg.sign("a@x.example", &[], &simple_signing("q.io/a/b:1", &digest));
        write(image.dir().join("signature-1"), &signature);
        let store = format!("vfs@{0}/root+{0}/run", tmp.display());
        let name = |image: &str| format!("containers-storage:[{store}]{image}");
        let dir = format!("dir:{}", image.dir().display());
        let probe = skopeo(&["--insecure-policy", "copy", &dir, &name("q.io/a/b:1")]);
        if probe.exit != 0 && !nix::unistd::geteuid().is_root() {
            return crate::support::skip("skopeo cannot make a store without root");
        }
        assert_eq!(probe.exit, 0, "{probe:?}");

        // The same image once more, by way of an index.
        let hex = digest.trim_start_matches("sha256:");
        let list = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": [{ "mediaType": DOCKER_MANIFEST, "size": image.manifest.len(), "digest": digest,
                "platform": { "architecture": "amd64", "os": "linux" } }],
        })
        .to_string();
        let list_digest = sha256(&list);
        fs::rename(image.dir().join("manifest.json"), image.dir().join(format!("{hex}.manifest.json")))
            .unwrap();
        fs::rename(image.dir().join("signature-1"), image.dir().join(format!("{hex}.signature-1"))).unwrap();
        write(image.dir().join("manifest.json"), &list);
        for destination in [format!("q.io/a/c@{list_digest}"), "q.io/a/d:1".to_owned()] {
            let copy = ["--insecure-policy", "--override-arch", "amd64", "copy", &dir, &name(&destination)];
            let ran = skopeo(&copy);
            assert_eq!(ran.exit, 0, "{ran:?}");
        }

        let policy = |file: &str, user: &str, identity: Value| {
            let key = write(tmp.join(format!("{file}.gpg")), gpg.export(user));
            let requirement = json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPath": key, "signedIdentity": identity });
            write(tmp.join(file), json!({ "default": [requirement] }).to_string())
        };
        let exact = json!({ "type": "matchRepoDigestOrExact" });
        let repository = json!({ "type": "exactRepository", "dockerRepository": "q.io/a/b" });
        let policies = [
            policy("exact.json", "a@x.example", exact.clone()),
            policy("repository.json", "a@x.example", repository.clone()),
            policy("other-key.json", "b@x.example", repository),
        ];
        let images = [
            "q.io/a/b:1".to_owned(),
            "q.io/a/d:1".to_owned(),
            format!("q.io/a/b@{digest}"),
            format!("q.io/a/b@{list_digest}"),
            format!("q.io/a/c@{digest}"),
            format!("q.io/a/c@{list_digest}"),
        ];
        let mut before = BTreeMap::new();
        snapshot(&tmp.join("root"), &mut before);
        let mut allowed = 0;
        for path in &policies {
            for image in &images {
                let ran =
                    verdict(path, &name(image), &["--subject", "instance", "--platform", "linux/amd64"]);
                allowed += usize::from(ran.exit == 0);
                let copy = tempfile::tempdir_in(tmp).unwrap();
                let theirs = skopeo(&[
                    "--policy",
                    path.to_str().unwrap(),
                    "--override-arch",
                    "amd64",
                    "copy",
                    "--remove-signatures",
                    &name(image),
                    &format!("dir:{}", copy.path().display()),
                ]);
                let (ours, theirs_ok) = (ran.exit, theirs.exit == 0);
                assert_eq!(ours == 0, theirs_ok, "{} {image}: {ran:?} {theirs:?}", path.display());
                assert!(matches!(ours, 0 | 1), "{ran:?}");
            }
        }
        assert_eq!(allowed, 3 + 6);

        // A store that was tampered with, judged again by both.
        let images_json = tmp.join("root/vfs-images/images.json");
        let records: Value = serde_json::from_slice(&fs::read(&images_json).unwrap()).unwrap();
        let directory = tmp.join("root/vfs-images").join(records[0]["id"].as_str().unwrap());
        let mut evil = signature;
        let last = evil.len() - 1;
        evil[last] ^= 1;
        write(directory.join("signatures"), evil);
        assert_eq!(verdict(&policies[1], &name("q.io/a/b:1"), &[]).exit, 1);
        write(directory.join("signatures"), b"");
        assert_eq!(verdict(&policies[1], &name("q.io/a/b:1"), &[]).exit, 3);
        let mut evil = image.manifest.clone();
        evil.push(b' ');
        write(directory.join("manifest"), evil);
        assert_eq!(verdict(&policies[1], &name("q.io/a/b:1"), &[]).code(), (3, "digest-mismatch".to_owned()));
    }

    // Rules B-6, E-20: nothing is written, and nothing need be writable.
    #[test]
    fn reading_leaves_the_store_as_it_is() {
        let mut store = Store::new();
        store.add(&id('a'), &["q.io/a/b:1"], &[&image("1")])["metadata"] =
            json!(r#"{"signature-sizes":[4]}"#);
        write(store.data(&id('a'), "signatures"), BLOB);
        store.save();
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        snapshot(store.tmp.path(), &mut before);
        assert!(store.read("q.io/a/b:1").is_ok());
        assert_eq!(store.signatures("aaa", None), Ok(1));
        assert!(store.read("q.io/a/c:1").is_err());
        snapshot(store.tmp.path(), &mut after);
        assert_eq!(before, after);
        let missing = store.tmp.path().join("missing");
        assert!(manifest(&format!("containers-storage:[vfs@{}]q.io/a:1", missing.display())).is_err());
        assert!(!missing.exists());
    }
}

mod storage_conf {
    use super::*;

    struct Host {
        tmp: TempDir,
        environment: Environment,
    }

    impl Host {
        fn new(uid: u32, user: bool) -> Self {
            let tmp = TempDir::new().unwrap();
            let root = tmp.path().canonicalize().unwrap();
            let user = user.then(|| User::at_home(root.join("home")));
            Self { environment: Environment { root, uid, user }, tmp }
        }

        fn write(&self, path: &str, text: &str) -> PathBuf {
            write(self.environment.root.join(path), text)
        }

        fn variables(&mut self) -> &mut StorageVariables {
            &mut self.environment.user.as_mut().unwrap().storage
        }

        /// Driver, root and directories of images, with the temporary directory written as `T`.
        fn load(&self) -> Result<(String, String, Vec<String>), Code> {
            let conf = StorageConf::load(&self.environment).map_err(|error| error.code())?;
            let short = |path: &Path| path.display().to_string().replace(self.root(), "T");
            let images = conf.images.iter().map(|path| short(path)).collect();
            Ok((conf.driver.unwrap_or_default(), short(&conf.root), images))
        }

        fn root(&self) -> &str {
            self.environment.root.to_str().unwrap()
        }
    }

    fn found(driver: &str, root: &str, images: &[&str]) -> Result<(String, String, Vec<String>), Code> {
        let images = images.iter().map(|&image| image.to_owned()).collect();
        Ok((driver.to_owned(), root.to_owned(), images))
    }

    const DEFAULT: &str = "/var/lib/containers/storage";

    // Rules S-11, T-22, T-23.
    #[test]
    fn the_first_file_counts_and_drop_ins_come_after_it() {
        let mut host = Host::new(0, true);
        assert_eq!(host.load(), found("", DEFAULT, &[DEFAULT]));
        host.write(
            "usr/share/containers/storage.conf",
            "[storage]\ndriver = 'overlay'\ngraphroot = '/usr/g'\n",
        );
        assert_eq!(host.load(), found("overlay", "/usr/g", &["/usr/g"]));
        host.write("etc/containers/storage.conf", "[storage]\ndriver = 'btrfs'\n");
        assert_eq!(host.load(), found("btrfs", DEFAULT, &[DEFAULT]));
        host.write(
            "home/.config/containers/storage.conf",
            "[storage]\ndriver = 'vfs'\ngraphroot = '/home/g'\n",
        );
        assert_eq!(host.load(), found("vfs", "/home/g", &["/home/g"]));
        let as_root = Environment { user: None, ..host.environment.clone() };
        assert_eq!(StorageConf::load(&as_root).unwrap().driver.as_deref(), Some("btrfs"));

        // Of drop-ins with one name the last directory's counts; all are applied by name.
        host.write("usr/share/containers/storage.conf.d/10.conf", "[storage]\ngraphroot = '/10-usr'\n");
        host.write("usr/share/containers/storage.conf.d/20.conf", "[storage]\ndriver = 'zfs'\n");
        host.write("usr/share/containers/storage.conf.d/30.txt", "broken");
        host.write("etc/containers/storage.rootless.conf.d/10.conf", "broken");
        assert_eq!(host.load(), found("zfs", "/10-usr", &["/10-usr"]));
        host.write("etc/containers/storage.rootful.conf.d/10.conf", "[storage]\ngraphroot = '/10-etc'\n");
        host.write("home/.config/containers/storage.conf.d/20.conf", "");
        assert_eq!(host.load(), found("vfs", "/10-etc", &["/10-etc"]));
        symlink("/no/such", host.environment.root.join("etc/containers/storage.conf.d")).unwrap();
        assert_eq!(host.load(), found("vfs", "/10-etc", &["/10-etc"]));

        let last = host.write("last", "[storage]\ngraphroot = '/last'\n");
        let sole = host.write("sole", "[storage.options]\nadditionalimagestores = ['/more']\n");
        host.variables().conf_override = Some(last);
        assert_eq!(host.load(), found("vfs", "/last", &["/last"]));
        host.variables().conf = Some(sole);
        host.variables().driver = Some("overlay2".to_owned());
        assert_eq!(host.load(), found("overlay2", "/last", &["/last", "/more"]));
        host.variables().options = Some("overlay.imagestore=/a,mountopt=x,.imagestore=/b".to_owned());
        assert_eq!(host.load(), found("overlay2", "/last", &["/last", "/a", "/b"]));
        host.variables().options = Some(String::new());
        assert_eq!(host.load(), found("overlay2", "/last", &["/last"]));
        host.variables().conf = Some(PathBuf::from("/no/such"));
        assert_eq!(host.load(), Err(Code::StorageConfInvalid));
    }

    // Rules S-11, T-22.
    #[test]
    fn without_root_the_store_is_in_the_home() {
        let mut host = Host::new(1000, true);
        assert_eq!(
            host.load(),
            found("", "T/home/.local/share/containers/storage", &["T/home/.local/share/containers/storage"])
        );
        host.variables().xdg_data_home = Some("/data".into());
        assert_eq!(host.load(), found("", "/data/containers/storage", &["/data/containers/storage"]));
        host.write("etc/containers/storage.conf", "[storage]\nrootless_storage_path = '$HOME/$UID/s'\n");
        assert_eq!(host.load(), found("", "T/home/1000/s", &["T/home/1000/s"]));
        host.write("etc/containers/storage.rootful.conf.d/1.conf", "broken");
        host.write(
            "etc/containers/storage.rootless.conf.d/1000/1.conf",
            "[storage]\ngraphroot = '${XDG_DATA_HOME}/x/../g'\n",
        );
        assert_eq!(host.load(), found("", "/data/g", &["/data/g"]));
        fs::create_dir_all(host.environment.root.join("real")).unwrap();
        symlink("real", host.environment.root.join("link")).unwrap();
        let text = format!("[storage]\ngraphroot = '{}/link'\nimagestore = '/i'\n", host.root());
        host.write("etc/containers/storage.rootless.conf.d/2.conf", &text);
        assert_eq!(host.load(), found("", "T/real", &["/i", "T/real"]));
        assert!(host.tmp.path().exists());
    }

    // Rule S-11.
    #[test]
    fn lists_are_replaced_or_appended() {
        let host = Host::new(0, false);
        let more = |stores: &str| format!("[storage.options]\nadditionalimagestores = [{stores}]\n");
        for (first, second, wanted) in [
            ("'/a'", "'/b'", &[DEFAULT, "/b"][..]),
            ("'/a'", "'/b', {append=true}", &[DEFAULT, "/a", "/b"]),
            ("'/a', {append=true}", "'/b'", &[DEFAULT, "/a", "/b"]),
            ("'/a', {append=true}", "'/b', {append=false}", &[DEFAULT, "/b"]),
            ("'/a/../c/'", "{append=true}", &[DEFAULT, "/c"]),
        ] {
            host.write("etc/containers/storage.conf", &more(first));
            host.write("etc/containers/storage.conf.d/1.conf", &more(second));
            assert_eq!(host.load(), found("", DEFAULT, wanted), "{first} {second}");
        }
    }

    // Rules S-11, T-22, T-23: what cannot be understood names no store.
    #[test]
    fn what_cannot_be_understood_is_an_error() {
        let host = Host::new(0, false);
        for (text, ok) in [
            ("", true),
            ("[other]\nx = 1\n", true),
            ("[storage]\nunknown = 1\ndriver = ''\n", true),
            ("[storage]\ngraphroot = '/g'\n", true),
            ("[storage]\ngraphroot = 'relative'\n", true),
            ("[storage]\ngraphroot = '$HOME/g'\n", false),
            ("[storage]\ngraphroot = '$NO_SUCH/g'\n", false),
            ("[storage]\ngraphroot = '${HOME/g'\n", false),
            ("[storage]\ngraphroot = '$/g'\n", false),
            ("[storage]\ngraphroot = '$UID/g'\n", true),
            ("[storage]\ngraphroot = 1\n", false),
            ("[storage]\nDriver = 'vfs'\n", false),
            ("[storage]\nimagestore = 'relative'\n", false),
            ("storage = 1\n", false),
            ("[storage]\noptions = 1\n", false),
            ("[storage.options]\nadditionalimagestores = '/a'\n", false),
            ("[storage.options]\nadditionalimagestores = ['a']\n", false),
            ("[storage.options]\nadditionalimagestores = [1]\n", false),
            ("[storage.options]\nadditionalimagestores = [{append='yes'}]\n", false),
            ("[storage.options]\nadditionalimagestores = [{prepend=true}]\n", false),
            ("[storage]\ndriver = 'a'\ndriver = 'b'\n", false),
            ("no TOML", false),
        ] {
            host.write("etc/containers/storage.conf", text);
            let found = host.load();
            assert_eq!(found.is_ok(), ok, "{text}: {found:?}");
            assert!(ok || found == Err(Code::StorageConfInvalid), "{text}: {found:?}");
        }
        fs::write(host.environment.root.join("etc/containers/storage.conf"), [b'#', 0xff]).unwrap();
        assert_eq!(host.load(), Err(Code::StorageConfInvalid));
        fs::write(host.environment.root.join("etc/containers/storage.conf"), vec![b'#'; (4 << 20) + 1])
            .unwrap();
        assert_eq!(host.load(), Err(Code::StorageConfInvalid));
        fs::remove_file(host.environment.root.join("etc/containers/storage.conf")).unwrap();
        host.write("usr/share/containers/storage.conf", "");
        // A link that leads nowhere is not absent.
        symlink("/no/such", host.environment.root.join("etc/containers/storage.conf")).unwrap();
        assert_eq!(host.load(), Err(Code::StorageConfInvalid));
    }

    // Rules S-11, S-12.
    #[test]
    fn a_name_without_a_store_means_the_configured_one() {
        let host = Host::new(0, false);
        host.write("etc/containers/storage.conf", "[storage]\ndriver = 'overlay2'\ngraphroot = '/g'\n");
        let identity = |name: &str| {
            let name = ImageName::parse(name).unwrap();
            local::resolve_in(Path::new("/"), &host.environment, name)
                .map(|image| (image.policy_identity().to_owned(), image.policy_namespaces().to_vec()))
        };
        let (identity_of, namespaces) = identity("containers-storage:busybox").unwrap();
        assert_eq!(identity_of, "[overlay@/g]docker.io/library/busybox:latest");
        assert_eq!(
            namespaces,
            [
                "[overlay@/g]docker.io/library/busybox",
                "[overlay@/g]docker.io/library",
                "[overlay@/g]docker.io",
                "[overlay@/g]",
                "[/g]"
            ]
        );
        host.write("etc/containers/storage.conf", "broken");
        assert_eq!(code(identity("containers-storage:busybox")), Some(Code::StorageConfInvalid));
        // A name that says it needs no configuration.
        assert!(identity("containers-storage:[vfs@/x]busybox").is_ok());
    }
}

mod policies {
    use super::*;

    // Rules S-6 to S-9, P-7.
    #[test]
    fn ostree_names_have_a_repository_and_an_image() {
        let tmp = TempDir::new().unwrap();
        let root = tmp.path().canonicalize().unwrap();
        let root = root.to_str().unwrap();
        fs::create_dir(format!("{root}/a:b")).unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, identity, namespaces) in [
            ("busybox".to_owned(), "/ostree/repo:busybox:latest".to_owned(), vec!["/ostree/repo:busybox"]),
            (
                "h.example/a/b:1".to_owned(),
                "/ostree/repo:h.example/a/b:1".to_owned(),
                vec!["/ostree/repo:h.example/a/b", "/ostree/repo:h.example/a", "/ostree/repo:h.example"],
            ),
            (format!("a@{digest}"), format!("/ostree/repo:a@{digest}"), vec!["/ostree/repo:a@sha256"]),
        ] {
            let image = resolve(&format!("ostree:{name}")).unwrap();
            assert_eq!(
                (image.policy_identity(), image.policy_namespaces()),
                (identity.as_str(), namespaces.iter().map(|&n| n.to_owned()).collect::<Vec<_>>().as_slice()),
                "{name}"
            );
            let at = resolve(&format!("ostree:{name}@/{root}//./repo")).unwrap();
            assert_eq!(
                at.policy_identity(),
                identity.replace("/ostree/repo", &format!("{root}/repo")),
                "{name}"
            );
            assert_eq!((at.docker_reference(), at.transport().name()), (None, "ostree"));
        }
        for name in ["ostree:", "ostree:UPPER", "ostree:a:b:c", "ostree:@/x"] {
            assert!(ImageName::parse(name).is_err(), "{name}");
        }
        for name in [format!("ostree:a@/{root}/a:b"), format!("ostree:a@/{root}/no/such")] {
            assert_eq!(code(resolve(&name)), Some(Code::LocalImageInvalid), "{name}");
        }
    }

    // Rules S-5 to S-9, S-20, B-6, P-7.
    #[test]
    fn what_cannot_be_read_is_accepted_or_rejected_by_the_policy_alone() {
        let tmp = TempDir::new().unwrap();
        let tar = write(tmp.path().join("x"), "");
        let path = tar.to_str().unwrap();
        let id = "a".repeat(64);
        for (transport, name, scope) in [
            ("atomic", "h.example/a/b:1".to_owned(), "h.example/a"),
            ("docker-daemon", "h.example/a/b:1".to_owned(), "h.example/a"),
            ("docker-daemon", format!("sha256:{id}"), ""),
            ("ostree", "h.example/a/b:1".to_owned(), "/ostree/repo:h.example/a"),
            ("sif", path.to_owned(), tmp.path().to_str().unwrap()),
            ("tarball", path.to_owned(), ""),
        ] {
            let name = format!("{transport}:{name}");
            let signed = r#"{"type":"sigstoreSigned","keyData":""}"#;
            for (requirement, wanted) in [
                (r#"{"type":"insecureAcceptAnything"}"#, (0, "allowed")),
                (r#"{"type":"reject"}"#, (1, "rejected-by-policy")),
                (signed, (3, "unsupported-transport")),
            ] {
                let other = if wanted.0 == 0 { "reject" } else { "insecureAcceptAnything" };
                let policy = format!(
                    r#"{{"default":[{{"type":"{other}"}}],"transports":{{"{transport}":{{"{scope}":[{requirement}]}}}}}}"#
                );
                let policy = write(tmp.path().join("policy.json"), policy);
                assert_eq!(verdict(&policy, &name, &[]).code(), (wanted.0, wanted.1.to_owned()), "{name}");
            }
        }
    }

    // Rule T-28.
    #[test]
    fn what_is_held_comes_out_of_the_budget() {
        let tmp = TempDir::new().unwrap();
        let oci = Tar::default().file(&blob_name(IMAGE), IMAGE).file("index.json", only()).end();
        let oci = write(tmp.path().join("oci.tar"), oci);
        let config = r#"{"rootfs":{"diff_ids":[]}}"#;
        let docker =
            Tar::default().file("c", config).file("manifest.json", r#"[{"Config":"c","Layers":[]}]"#);
        let docker = write(tmp.path().join("docker.tar"), docker.end());
        let digest = Digest::sha256(IMAGE.as_bytes()).to_string();
        let records =
            json!([{ "id": "a", "names": ["q.io/a:1"], "big-data-digests": { "manifest": digest } }]);
        write(tmp.path().join("vfs-images/images.json"), records.to_string());
        write(tmp.path().join("vfs-images/a/manifest"), IMAGE);
        for name in [
            format!("oci-archive:{}", oci.display()),
            format!("docker-archive:{}", docker.display()),
            format!("containers-storage:[vfs@{}]q.io/a:1", tmp.path().display()),
        ] {
            let (image, platform) = (resolve(&name).unwrap(), Platform::parse("linux/amd64").unwrap());
            let deadline = Instant::now() + Duration::from_secs(60);
            for (left, wanted) in [(4096, None), (10, Some(Code::EvidenceTooLarge))] {
                let budget = Budget::new();
                budget.bytes(fetch::EVIDENCE_BYTES - left).unwrap();
                let image = local::Image::open(&image, &platform, &budget, deadline).unwrap().unwrap();
                assert_eq!(code(image.manifest(None)), wanted, "{name} {left}");
            }
        }
    }

    // Rules B-6, S-7, S-10.
    #[test]
    fn archives_are_unsigned_wherever_a_signature_is_required() {
        let tmp = TempDir::new().unwrap();
        let oci = Tar::default().file(&blob_name(IMAGE), IMAGE).file("index.json", only()).end();
        let oci = write(tmp.path().join("oci.tar"), oci);
        let config = r#"{"rootfs":{"diff_ids":[]}}"#;
        let docker =
            Tar::default().file("c", config).file("manifest.json", r#"[{"Config":"c","Layers":[]}]"#);
        let docker = write(tmp.path().join("docker.tar"), docker.end());
        let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/policy-examples/demo/policy.json");
        let demo: Value = serde_json::from_slice(&fs::read(pem).unwrap()).unwrap();
        let requirement = demo["transports"]["dir"][""].clone();
        let signed = write(tmp.path().join("signed.json"), json!({ "default": requirement }).to_string());
        let anything = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        let anything = write(tmp.path().join("any.json"), anything);
        for name in [format!("oci-archive:{}", oci.display()), format!("docker-archive:{}", docker.display())]
        {
            assert_eq!(verdict(&signed, &name, &[]).code(), (1, "unsigned".to_owned()), "{name}");
            let ran = verdict(&anything, &name, &[]);
            let found = Digest::sha256(&manifest(&name).unwrap().bytes).to_string();
            assert_eq!((ran.exit, &ran.json()["manifest-digest"]), (0, &json!(found)), "{ran:?}");
        }
    }
}
