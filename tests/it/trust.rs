//! The trusted root of a host: where it is from, how it is updated, how old it may be (T-31).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};
use sigstore_tuf::canonical_json::to_canonical_bytes;
use tokio::time::Instant;

use vouchd::config::Environment;
use vouchd::diagnostic::Code;
use vouchd::digest::Digest;
use vouchd::fetch::host_root::HostRoots;
use vouchd::fetch::registry::{Client, Settings};
use vouchd::fetch::trust_update::{self, Outcome, UpdateError};
use vouchd::fetch::{Error, ProxySource};
use vouchd::verify::Timestamp;
use vouchd::verify::trusted_root::{HostRoot, STALE_AFTER};
use vouchd::verify::tuf::{self, TufState};

use crate::cosign3::{OURS, WORKFLOW, World, build, of_image};
use crate::server::{Reply, Server};
use crate::signer::{MIDNIGHT, Sigstore, base64, hex, sha256};
use crate::support::{self, write};

const DAY: i64 = 86_400;
/// A midnight after the floor of clocks.
const START: i64 = MIDNIGHT + 300 * DAY;
const NOW: Timestamp = Timestamp(START);

/// Whether the tests can own files as root; says so if not.
fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        support::skip("the configuration of a host must be root's");
    }
    is_root
}

/// A key of TUF metadata.
struct Key {
    pair: KeyPair,
    id: String,
}

impl Key {
    fn new() -> Self {
        let pair = KeyPair::generate().unwrap();
        let id = hex(&sha256(pair.public_key_raw()));
        Self { pair, id }
    }

    fn public(&self) -> Value {
        json!({
            "keytype": "ecdsa",
            "scheme": "ecdsa-sha2-nistp256",
            "keyval": { "public": self.pair.public_key_pem() },
        })
    }
}

/// What of a TUF repository a test may change.
struct Tuf {
    /// The keys of the root; two of three must sign.
    keys: Vec<Key>,
    online: Key,
    root: u64,
    timestamp: u64,
    snapshot: u64,
    targets: u64,
    root_expires: i64,
    timestamp_expires: i64,
    trusted_root: Vec<u8>,
    /// The listed name, length and digest of the target, where they are not the right ones.
    listed: Option<(&'static str, usize, String)>,
    /// What is served, by path.
    files: BTreeMap<String, Vec<u8>>,
}

impl Tuf {
    fn new() -> Self {
        let mut tuf = Self {
            keys: (0..3).map(|_| Key::new()).collect(),
            online: Key::new(),
            root: 1,
            timestamp: 1,
            snapshot: 1,
            targets: 1,
            root_expires: START + 365 * DAY,
            timestamp_expires: START + 7 * DAY,
            trusted_root: Sigstore::new().trusted_root().to_string().into_bytes(),
            listed: None,
            files: BTreeMap::new(),
        };
        let root = tuf.root(&[]);
        tuf.put("1.root.json", root);
        tuf.publish();
        tuf
    }

    fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.insert(format!("/{path}"), content.into());
    }

    fn initial(&self) -> Vec<u8> {
        self.files["/1.root.json"].clone()
    }

    /// The root, signed by its own keys and by those of the one before.
    fn root(&self, before: &[Key]) -> String {
        let ids: Vec<&str> = self.keys.iter().map(|key| &*key.id).collect();
        let mut keys: BTreeMap<&str, Value> = self.keys.iter().map(|key| (&*key.id, key.public())).collect();
        keys.insert(&self.online.id, self.online.public());
        let (offline, online) =
            (json!({ "keyids": ids, "threshold": 2 }), json!({ "keyids": [self.online.id], "threshold": 1 }));
        let signed = json!({
            "_type": "root", "spec_version": "1.0", "version": self.root, "consistent_snapshot": true,
            "expires": time(self.root_expires), "keys": keys,
            "roles": { "root": offline, "targets": offline, "snapshot": online, "timestamp": online },
        });
        sign(&signed, self.keys.iter().take(2).chain(before.iter().take(2)))
    }

    /// Writes timestamp, snapshot, targets and the trusted root.
    fn publish(&mut self) {
        let digest = hex(&sha256(&self.trusted_root));
        let (name, length, listed) =
            self.listed.clone().unwrap_or((tuf::TARGET, self.trusted_root.len(), digest.clone()));
        let targets = json!({
            "_type": "targets", "spec_version": "1.0", "version": self.targets,
            "expires": time(START + 3_650 * DAY),
            "targets": { name: { "length": length, "hashes": { "sha256": listed } } },
        });
        let snapshot = json!({
            "_type": "snapshot", "spec_version": "1.0", "version": self.snapshot,
            "expires": time(START + 3_650 * DAY),
            "meta": { "targets.json": { "version": self.targets } },
        });
        let timestamp = json!({
            "_type": "timestamp", "spec_version": "1.0", "version": self.timestamp,
            "expires": time(self.timestamp_expires),
            "meta": { "snapshot.json": { "version": self.snapshot } },
        });
        let targets = sign(&targets, self.keys.iter().take(2));
        let (snapshot, timestamp) = (sign(&snapshot, [&self.online]), sign(&timestamp, [&self.online]));
        self.put(&format!("{}.targets.json", self.targets), targets);
        self.put(&format!("{}.snapshot.json", self.snapshot), snapshot);
        self.put("timestamp.json", timestamp);
        self.put(&format!("targets/{listed}.{name}"), self.trusted_root.clone());
    }

    /// A newer trusted root.
    fn advance(&mut self) {
        self.trusted_root = Sigstore::new().trusted_root().to_string().into_bytes();
        (self.timestamp, self.snapshot, self.targets) =
            (self.timestamp + 1, self.snapshot + 1, self.targets + 1);
        self.publish();
    }

    /// A newer root with other keys, signed by the old ones if `honest`.
    fn rotate(&mut self, honest: bool) {
        let before = std::mem::replace(&mut self.keys, (0..3).map(|_| Key::new()).collect());
        self.online = Key::new();
        self.root += 1;
        let root = self.root(if honest { &before } else { &[] });
        self.put(&format!("{}.root.json", self.root), root);
        self.advance();
    }

    /// The state that an honest client stores.
    fn state(&self) -> TufState {
        let file = |name: String| self.files[&format!("/{name}")].clone();
        TufState {
            roots: (1..=self.root).map(|version| file(format!("{version}.root.json"))).collect(),
            timestamp: file("timestamp.json".to_owned()),
            snapshot: file(format!("{}.snapshot.json", self.snapshot)),
            targets: file(format!("{}.targets.json", self.targets)),
            trusted_root: self.trusted_root.clone(),
        }
    }
}

fn sign<'k>(signed: &Value, keys: impl IntoIterator<Item = &'k Key>) -> String {
    let text = to_canonical_bytes(signed).unwrap();
    let signatures: Vec<Value> = keys
        .into_iter()
        .map(|key| json!({ "keyid": key.id, "sig": hex(&key.pair.sign(&text).unwrap()) }))
        .collect();
    json!({ "signed": signed, "signatures": signatures }).to_string()
}

fn time(seconds: i64) -> String {
    Timestamp(seconds).to_string()
}

/// A host that takes its trusted root from a TUF repository of a test.
struct Host {
    dir: tempfile::TempDir,
    server: Server,
    tuf: Arc<Mutex<Tuf>>,
    roots: HostRoots,
}

impl Host {
    async fn new() -> Self {
        Self::with(|_, _| None).await
    }

    /// The server says what `script` says, and else serves the repository.
    async fn with(script: impl Fn(&str, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let tuf = Arc::new(Mutex::new(Tuf::new()));
        let (served, asked) = (Arc::clone(&tuf), Mutex::new(BTreeMap::<String, usize>::new()));
        let server = Server::start(
            None,
            Box::new(move |_: &str, seen| {
                let count = {
                    let mut asked = asked.lock().unwrap();
                    let count = asked.entry(seen.path.clone()).or_default();
                    *count += 1;
                    *count
                };
                let path = seen.path.strip_prefix("/tuf").unwrap_or(&seen.path);
                let file = || match served.lock().unwrap().files.get(path) {
                    Some(bytes) => Reply::ok(bytes),
                    None => Reply::status(404, "nothing here"),
                };
                script(path, count).unwrap_or_else(file)
            }),
        )
        .await;
        let dir = tempfile::tempdir().unwrap();
        let root = tuf.lock().unwrap().initial();
        write(dir.path().join("etc/vouchd/tuf.json"), root);
        let toml = format!(
            "[trusted-root]\ntuf-mirror = \"http://{}/tuf/\"\ntuf-root = \"/etc/vouchd/tuf.json\"\n",
            server.host
        );
        write(dir.path().join("etc/vouchd/vouchd.toml"), toml);
        fs::create_dir_all(dir.path().join("var/lib/vouchd-trust")).unwrap();
        let roots = HostRoots::new(environment(&dir));
        Self { dir, server, tuf, roots }
    }

    fn environment(&self) -> Environment {
        environment(&self.dir)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("var/lib/vouchd-trust/sigstore.json")
    }

    async fn update_at(&self, now: Timestamp) -> Result<Outcome, UpdateError> {
        let proxies = ProxySource::Variables(Default::default());
        let deadline = Instant::now() + Duration::from_secs(5);
        trust_update::update(&self.environment(), Client::new(Settings::default()), proxies, deadline, now)
            .await
    }

    async fn update(&self) -> Result<Outcome, UpdateError> {
        self.update_at(NOW).await
    }

    /// The update is refused, for a reason that says this, and what was there stays as it is.
    async fn refuses(&self, why: &str) {
        let before = fs::read(self.state()).ok();
        let error = self.update().await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert_eq!(error.code(), Code::TrustedRootUpdate, "{error}");
        assert_eq!(fs::read(self.state()).ok(), before);
    }

    fn root(&self) -> Result<Arc<HostRoot>, Error> {
        self.roots.load()
    }

    /// The version of the targets that list the trusted root.
    fn targets(&self) -> u64 {
        self.root().unwrap().versions.unwrap().targets
    }

    fn change(&self, change: impl FnOnce(&mut Tuf)) {
        change(&mut self.tuf.lock().unwrap());
    }
}

fn environment(dir: &tempfile::TempDir) -> Environment {
    Environment { root: dir.path().to_owned(), uid: 0, user: None }
}

/// What the program brings along is the file that this version of Sigstore's targets lists.
#[test]
fn the_built_in_root_is_the_one_that_its_version_lists() {
    let listed = "6494e21ea73fa7ee769f85f57d5a3e6a08725eae1e38c755fc3517c9e6bc0b66";
    let document = sigstore_verify::trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;
    assert_eq!(Digest::sha256(document.as_bytes()).hex(), listed);
    assert_eq!(tuf::BUILT_IN, (14, Timestamp(1_787_945_156)));
    let dir = tempfile::tempdir().unwrap();
    let root = HostRoots::new(environment(&dir)).load().unwrap();
    assert_eq!(root.versions.unwrap().targets, 14);
    assert_eq!(root.root.instances().len(), 7);
    let end = tuf::BUILT_IN.1.0 + STALE_AFTER;
    assert!(!root.is_stale(Timestamp(end)) && root.is_stale(Timestamp(end + 1)));
}

#[tokio::test]
async fn an_update_is_stored_with_its_proof_and_counts() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    assert!(host.root().unwrap_err().to_string().contains("no update has fetched"));
    let outcome = host.update().await.unwrap();
    assert_eq!(outcome.before, None);
    assert_eq!(outcome.current_until, Some(Timestamp(START + 7 * DAY)));
    let root = host.root().unwrap();
    assert_eq!(root.source, outcome.source());
    assert_eq!(root.versions, outcome.after);
    assert_eq!(root.current_until, outcome.current_until);
    let paths = |host: &Host| -> Vec<String> { host.server.seen().into_iter().map(|s| s.path).collect() };
    let first = paths(&host);
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(first.iter().all(|path| path.starts_with("/tuf/")), "{first:?}");
    // Nothing is fetched again, and nothing is written.
    let written = fs::metadata(host.state()).unwrap().modified().unwrap();
    let again = host.update().await.unwrap();
    assert_eq!(again.before, again.after);
    assert_eq!(paths(&host)[5..], ["/tuf/2.root.json", "/tuf/timestamp.json"]);
    assert_eq!(fs::metadata(host.state()).unwrap().modified().unwrap(), written);
    // Only the timestamp is new: the root is current for longer.
    host.change(|tuf| {
        tuf.timestamp += 1;
        tuf.timestamp_expires += 7 * DAY;
        tuf.publish();
    });
    host.update().await.unwrap();
    assert_eq!(host.root().unwrap().current_until, Some(Timestamp(START + 14 * DAY)));
    host.change(Tuf::advance);
    assert_eq!(host.update().await.unwrap().after.unwrap().targets, 2);
    assert_eq!(host.targets(), 2);
    let leftovers = fs::read_dir(host.state().parent().unwrap()).unwrap().count();
    assert_eq!(leftovers, 2, "the state and its lock");
}

#[tokio::test]
async fn roots_rotate_each_signed_by_the_one_before() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    host.update().await.unwrap();
    host.change(|tuf| tuf.rotate(true));
    host.change(|tuf| tuf.rotate(true));
    let outcome = host.update().await.unwrap();
    assert_eq!((outcome.after.unwrap().root, host.targets()), (3, 3));
    // A host that begins with the first root comes to the same end.
    let state = TufState::parse(&fs::read(host.state()).unwrap()).unwrap();
    let initial = host.tuf.lock().unwrap().initial();
    assert_eq!(state.verify(&initial).unwrap().unwrap().versions, outcome.after.unwrap());
    // One whose program brings the last root does, too; one with a later root takes nothing that is older.
    let last = state.roots.last().unwrap().clone();
    assert!(state.verify(&last).unwrap().is_some());
    host.change(|tuf| tuf.rotate(true));
    let later = host.tuf.lock().unwrap().files["/4.root.json"].clone();
    assert!(state.verify(&later).unwrap().is_none());
    host.update().await.unwrap();
    host.change(|tuf| tuf.rotate(false));
    host.refuses("threshold").await;
    assert_eq!(host.targets(), 4);
}

#[tokio::test]
async fn nothing_goes_back_and_nothing_expired_is_taken() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    host.change(Tuf::advance);
    host.change(Tuf::advance);
    host.update().await.unwrap();
    let back = |change: fn(&mut Tuf)| {
        host.change(|tuf| {
            change(tuf);
            tuf.publish();
        });
    };
    back(|tuf| tuf.timestamp = 2);
    host.refuses("rollback").await;
    back(|tuf| (tuf.timestamp, tuf.snapshot) = (4, 2));
    host.refuses("rollback").await;
    back(|tuf| (tuf.timestamp, tuf.snapshot, tuf.targets) = (4, 4, 2));
    host.refuses("rollback").await;
    back(|tuf| {
        (tuf.timestamp, tuf.snapshot, tuf.targets) = (4, 4, 4);
        tuf.timestamp_expires = START - 1;
    });
    host.refuses("expired").await;
    // The same metadata for ever is no news, however often it is served.
    back(|tuf| {
        (tuf.timestamp, tuf.snapshot, tuf.targets) = (3, 3, 3);
        tuf.timestamp_expires = START + 7 * DAY;
    });
    let late = host.update_at(Timestamp(START + 7 * DAY + 1)).await.unwrap_err();
    assert!(late.to_string().contains("expired"), "{late}");
    let early = host.update_at(Timestamp(tuf::PUBLISHED.0 - 1)).await.unwrap_err();
    assert!(early.to_string().contains("the clock of this host"), "{early}");
    // It is old now, and still the one of this host.
    assert_eq!(host.targets(), 3);
    let root = host.root().unwrap();
    assert!(!root.is_stale(Timestamp(START + 187 * DAY)));
    assert!(root.is_stale(Timestamp(START + 187 * DAY + 1)));
    host.change(|tuf| tuf.root_expires = START - 1);
    host.change(|tuf| tuf.rotate(true));
    host.refuses("expired").await;
}

#[tokio::test]
async fn what_is_not_listed_as_it_is_is_not_taken() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    let other = hex(&sha256(b"another"));
    let right = |tuf: &Tuf| hex(&sha256(&tuf.trusted_root));
    for (listed, why) in [
        ((tuf::TARGET, 1, None), "at most 1"),
        ((tuf::TARGET, usize::MAX >> 12, None), "integrity"),
        ((tuf::TARGET, 0, Some(other)), "integrity"),
        (("other.json", 0, None), "not listed"),
    ] {
        host.change(|tuf| {
            let (name, length, digest) = listed.clone();
            tuf.advance();
            let length = if length == 0 { tuf.trusted_root.len() } else { length };
            tuf.listed = Some((name, length, digest.unwrap_or_else(|| right(tuf))));
            tuf.publish();
        });
        host.refuses(why).await;
    }
    host.change(|tuf| {
        tuf.listed = None;
        tuf.advance();
        tuf.trusted_root =
            b"{\"mediaType\":\"application/vnd.dev.sigstore.trustedroot+json;version=0.1\",\"tlogs\":[{}]}"
                .to_vec();
        tuf.publish();
    });
    host.refuses("").await;
    // Metadata that others signed, or too few.
    host.change(Tuf::advance);
    for file in ["timestamp.json", "snapshot.json", "targets.json"] {
        let (good, path) = {
            let tuf = host.tuf.lock().unwrap();
            let path = match file {
                "timestamp.json" => "/timestamp.json".to_owned(),
                _ => format!("/{}.{file}", tuf.targets),
            };
            (tuf.files[&path].clone(), path)
        };
        let mut bad: Value = serde_json::from_slice(&good).unwrap();
        bad["signatures"].as_array_mut().unwrap().pop();
        host.change(|tuf| drop(tuf.files.insert(path.clone(), bad.to_string().into())));
        host.refuses("threshold").await;
        host.change(|tuf| drop(tuf.files.insert(path, good)));
    }
    host.update().await.unwrap();
}

#[tokio::test]
async fn a_hostile_mirror_is_left_in_time() {
    if !is_root() {
        return;
    }
    for (reply, why) in [
        (Reply::status(500, "no"), "500"),
        (Reply::Endless, "more than"),
        (Reply::ok(b"{}"), "malformed"),
        (Reply::ok(b"{\"signed\":").announcing(9), "EOF"),
        (Reply::redirect(302, "http://169.254.169.254/latest"), "169.254.169.254"),
        (Reply::redirect(302, "/tuf/timestamp.json"), "redirects"),
        (Reply::Hang, ""),
        (Reply::Drip, ""),
    ] {
        let hangs = matches!(reply, Reply::Hang | Reply::Drip);
        let host = Host::with(move |path, _| (path == "/timestamp.json").then(|| reply.clone())).await;
        let started = std::time::Instant::now();
        let error = host.update().await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(20), "{error}");
        assert_eq!(error.code(), if hangs { Code::TimedOut } else { Code::TrustedRootUpdate }, "{error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert!(!host.state().exists());
    }
    // Roots without end.
    let host =
        Host::with(|path, _| path.strip_suffix(".root.json").map(|_| Reply::ok(&vec![b' '; 600_000]))).await;
    host.refuses("600000 bytes").await;
}

/// Whoever reads a state proves it anew: it may have been written by anybody.
#[tokio::test]
async fn a_state_that_proves_nothing_is_an_error() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    host.update().await.unwrap();
    let good = host.tuf.lock().unwrap().state();
    let initial = host.tuf.lock().unwrap().initial();
    assert_eq!(TufState::parse(good.to_json().as_bytes()), Ok(good.clone()));
    let stranger = Tuf::new().state();
    for change in [
        |state: &mut TufState, other: TufState| state.timestamp = other.timestamp,
        |state: &mut TufState, other: TufState| state.snapshot = other.snapshot,
        |state: &mut TufState, other: TufState| state.targets = other.targets,
        |state: &mut TufState, other: TufState| state.trusted_root = other.trusted_root,
        |state: &mut TufState, _| state.trusted_root.push(b' '),
        |state: &mut TufState, _| state.roots.push(b"{}".to_vec()),
        |state: &mut TufState, other: TufState| {
            let text = String::from_utf8(other.roots[0].clone()).unwrap();
            state.roots.push(text.replace("\"version\":1", "\"version\":2").into());
        },
        |state: &mut TufState, other: TufState| *state = other,
    ] {
        let mut state = good.clone();
        change(&mut state, stranger.clone());
        assert!(state.verify(&initial).is_err());
        write(host.state(), state.to_json());
        let error = host.root().unwrap_err();
        assert_eq!(error.code(), Code::TrustedRootInvalid, "{error}");
        assert!(error.is_configuration());
    }
    let json = good.to_json();
    for text in [
        String::new(),
        "[]".to_owned(),
        json.replacen("\"schema\":1", "\"schema\":2", 1),
        json.replacen('{', "{\"more\":1,", 1),
        json.replacen('{', "{\"timestamp\":\"\",", 1),
        json.replacen("\"timestamp\":\"", "\"timestamp\":\"!", 1),
        " ".repeat(tuf::STATE_BYTES) + &json,
    ] {
        write(host.state(), &text);
        assert!(host.root().is_err(), "{text:.80}");
    }
    // An update mends it.
    host.update().await.unwrap();
    assert_eq!(host.targets(), 1);
}

#[tokio::test]
async fn what_another_host_fetched_can_be_imported() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    let import = |name: &str, content: &[u8]| {
        let file = write(host.dir.path().join(name), content);
        trust_update::import(&host.environment(), &file)
    };
    let old = host.tuf.lock().unwrap().state();
    host.change(Tuf::advance);
    let new = host.tuf.lock().unwrap().state();
    import("new", new.to_json().as_bytes()).unwrap();
    assert_eq!(host.targets(), 2);
    let error = import("old", old.to_json().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("older"), "{error}");
    for bad in [Tuf::new().state().to_json().into_bytes(), b"{}".to_vec(), b"no".to_vec(), Vec::new()] {
        assert_eq!(import("bad", &bad).unwrap_err().code(), Code::TrustedRootUpdate);
    }
    assert!(trust_update::import(&host.environment(), &host.dir.path().join("absent")).is_err());
    assert_eq!(host.targets(), 2);
    assert_eq!(host.server.count(), 0);
    // With a root that lists nothing, nothing could be verified.
    let mut empty = Sigstore::new().trusted_root();
    for part in ["tlogs", "ctlogs", "certificateAuthorities"] {
        let mut less = empty.clone();
        less[part] = json!([]);
        let error = import("less", less.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("nothing could be verified"), "{part}: {error}");
    }
    empty.as_object_mut().unwrap().retain(|name, _| name == "mediaType");
    assert!(import("empty", empty.to_string().as_bytes()).is_err());
    // The administrator's own comes before all others. A copy has the age of what it is a copy of.
    let own = Sigstore::new().trusted_root().to_string();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = write(host.dir.path().join("own"), &own);
    fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    let outcome = trust_update::import(&host.environment(), &file).unwrap();
    assert_eq!(host.root().unwrap().current_until, Some(Timestamp(1_700_000_000)));
    let root = host.root().unwrap();
    assert_eq!((root.versions, &root.source), (None, &outcome.source()));
    host.change(Tuf::advance);
    host.update().await.unwrap();
    assert_eq!(host.root().unwrap().versions, None);
    // One that cannot be used is an error, and so is a link that leads nowhere: nothing stands in for it (T-23).
    let path = host.dir.path().join("etc/vouchd/trusted_root.json");
    write(path.clone(), "{}");
    assert_eq!(host.root().unwrap_err().code(), Code::TrustedRootInvalid);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert!(host.root().is_err());
    fs::remove_file(&path).unwrap();
    assert_eq!(host.targets(), 3);
}

/// T-31: mirror and initial root come from configuration that is root's.
#[tokio::test]
async fn the_configuration_of_updates_is_roots() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    host.update().await.unwrap();
    let nobody = Some(nix::unistd::Uid::from_raw(65_534));
    let initial = host.dir.path().join("etc/vouchd/tuf.json");
    nix::unistd::chown(&initial, nobody, None).unwrap();
    assert!(host.root().unwrap_err().to_string().contains("not owned by root"));
    assert_eq!(host.update().await.unwrap_err().code(), Code::TrustedRootInvalid);
    nix::unistd::chown(&initial, Some(nix::unistd::Uid::from_raw(0)), None).unwrap();
    // The state may be anybody's: the updater is no root.
    nix::unistd::chown(&host.state(), nobody, None).unwrap();
    assert_eq!(host.targets(), 1);
    let toml = host.dir.path().join("etc/vouchd/vouchd.toml");
    let mirror = format!("tuf-mirror = \"http://{}/tuf\"", host.server.host);
    for (settings, why) in [
        ("tuf-root = \"tuf.json\"", "absolute"),
        ("tuf-root = \"/etc/vouchd/absent.json\"", "No such file"),
        ("path = \"/etc/vouchd/absent.json\"", "No such file"),
        ("path = \"/etc/vouchd/tuf.json\"", "cannot use"),
    ] {
        write(toml.clone(), format!("[trusted-root]\n{settings}\n"));
        let error = host.root().unwrap_err();
        assert!(error.to_string().contains(why), "{settings}: {error}");
    }
    fs::remove_file(host.state()).unwrap();
    write(toml.clone(), format!("[trusted-root]\n{mirror}\n"));
    assert_eq!(host.root().unwrap().source, "this program");
    host.refuses("").await;
    let own = Sigstore::new().trusted_root().to_string();
    write(host.dir.path().join("etc/vouchd/mine.json"), own);
    write(toml.clone(), "[trusted-root]\npath = \"/etc/vouchd/mine.json\"\n");
    assert!(host.root().unwrap().source.ends_with("mine.json"));
    for mirror in ["ftp://example.com", "http://u:p@example.com", "http://example.com/?q", "example.com"] {
        write(
            toml.clone(),
            format!("[trusted-root]\ntuf-mirror = \"{mirror}\"\ntuf-root = \"/etc/vouchd/tuf.json\"\n"),
        );
        assert_eq!(host.update().await.unwrap_err().code(), Code::TrustedRootUpdate, "{mirror}");
    }
}

#[tokio::test]
async fn one_update_at_a_time() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    // The directory is for everybody to look into, so that its lock is for everybody to take: it is not ours.
    let directory = fs::File::open(host.state().parent().unwrap()).unwrap();
    let lock = nix::fcntl::Flock::lock(directory, nix::fcntl::FlockArg::LockExclusive).unwrap();
    host.update().await.unwrap();
    drop(lock);
    let path = host.state().with_extension("lock");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let file = fs::File::open(&path).unwrap();
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    host.change(Tuf::advance);
    host.refuses("another update").await;
    drop(lock);
    // A link in its place leads nowhere.
    let precious = write(host.dir.path().join("precious"), "");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&precious, &path).unwrap();
    host.refuses("cannot write").await;
    fs::remove_file(&path).unwrap();
    // What one that was killed left behind is in nobody's way, and no link is followed.
    let target = write(host.dir.path().join("target"), "precious");
    std::os::unix::fs::symlink(&target, host.state().with_extension("json.new")).unwrap();
    host.update().await.unwrap();
    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
}

/// Root may update what another user keeps, with any umask: the others must go on to read it, and to update it.
#[tokio::test]
async fn what_root_writes_is_for_everybody_to_read() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    let directory = host.state().parent().unwrap().to_owned();
    fs::remove_dir(&directory).unwrap();
    // The umask is one of the whole process, and other tests write files.
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o7777;
    host.update().await.unwrap();
    assert_eq!((mode(&directory), mode(&host.state())), (0o755, 0o644));
    fs::remove_dir_all(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let nobody = nix::unistd::Uid::from_raw(65_534);
    nix::unistd::chown(&directory, Some(nobody), None).unwrap();
    host.update().await.unwrap();
    assert_eq!(fs::metadata(host.state().with_extension("lock")).unwrap().uid(), 65_534);
    // Only what was made here is given away.
    let lock = host.state().with_extension("lock");
    fs::remove_file(&lock).unwrap();
    let secret = write(host.dir.path().join("secret"), "");
    fs::hard_link(&secret, &lock).unwrap();
    host.change(Tuf::advance);
    host.update().await.unwrap();
    assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);
}

/// Whatever is there that is no state is replaced, and read by nobody.
#[tokio::test]
async fn what_is_no_file_is_replaced() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    let put: [fn(&std::path::Path); 4] = [
        |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        |path| std::os::unix::fs::symlink("sigstore.json", path).unwrap(),
        |path| std::os::unix::fs::symlink("nowhere", path).unwrap(),
        |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
    ];
    for put in put {
        put(&host.state());
        assert!(host.root().is_err());
        host.update().await.unwrap();
        assert_eq!(host.targets(), 1);
        fs::remove_file(host.state()).unwrap();
    }
}

/// Spaces in metadata are signed by nobody: they must not make the state so large that it counts for nothing.
#[tokio::test]
async fn padding_does_not_make_room_for_older_metadata() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    host.change(Tuf::advance);
    let old = host.tuf.lock().unwrap().files.clone();
    host.change(Tuf::advance);
    host.update().await.unwrap();
    let pad = |tuf: &mut Tuf, roots: usize, others: usize| {
        for (name, bytes) in &mut tuf.files {
            let is_later = name.ends_with(".root.json") && name != "/1.root.json";
            let is_other = name.ends_with("snapshot.json") || name.ends_with("targets.json");
            let length = if is_later {
                roots
            } else if is_other {
                others
            } else {
                0
            };
            bytes.resize(bytes.len().max(length), b' ');
        }
    };
    host.change(|tuf| pad(tuf, 0, 600_000));
    host.change(Tuf::advance);
    host.change(|tuf| pad(tuf, 0, 600_000));
    host.refuses("262144").await;
    for _ in 0..64 {
        host.change(|tuf| tuf.rotate(true));
    }
    host.change(|tuf| pad(tuf, 65_000, 0));
    host.change(|tuf| tuf.files.retain(|name, bytes| !name.contains(".snapshot") || bytes.len() < 600_000));
    host.refuses("larger than 4 MiB").await;
    assert_eq!(host.targets(), 3);
    host.change(|tuf| tuf.files = old);
    host.refuses("rollback").await;
    assert_eq!(host.targets(), 3);
}

/// Keys that were stolen can be taken away, with what they made; and what they made does not stay new for ever.
#[tokio::test]
async fn a_new_root_takes_back_what_stolen_keys_made() {
    if !is_root() {
        return;
    }
    let host = Host::new().await;
    host.change(|tuf| {
        (tuf.timestamp, tuf.timestamp_expires) = (1_000_000, 253_402_207_200);
        tuf.publish();
    });
    host.update().await.unwrap();
    // The root itself does not say that it holds for ever.
    assert_eq!(host.root().unwrap().current_until, Some(Timestamp(START + 365 * DAY)));
    host.change(|tuf| {
        (tuf.timestamp, tuf.timestamp_expires) = (1, START + 7 * DAY);
        tuf.rotate(true);
    });
    let outcome = host.update().await.unwrap();
    assert_eq!(outcome.after.unwrap().timestamp, 2);
    assert_eq!(host.root().unwrap().current_until, Some(Timestamp(START + 7 * DAY)));
}

/// The state as it is stored says what it is, so that an import can tell it from a trusted root.
#[test]
fn states_are_told_from_trusted_roots() {
    let state = Tuf::new().state().to_json();
    assert!(TufState::is_one(state.as_bytes()));
    assert!(!TufState::is_one(Sigstore::new().trusted_root().to_string().as_bytes()));
    assert!(state.contains(&base64(&Tuf::new().trusted_root)[..8]));
}

/// A host whose trusted root is that of the world, by way of an update.
fn host_of(world: &World) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tuf = Tuf::new();
    tuf.timestamp_expires = MIDNIGHT + 7 * DAY;
    tuf.trusted_root = world.sigstore.trusted_root().to_string().into_bytes();
    tuf.publish();
    write(dir.path().join("etc/vouchd/tuf.json"), tuf.initial());
    write(dir.path().join("etc/vouchd/vouchd.toml"), "[trusted-root]\ntuf-root = \"/etc/vouchd/tuf.json\"\n");
    write(dir.path().join("var/lib/vouchd-trust/sigstore.json"), tuf.state().to_json());
    dir
}

/// Images are judged with the trusted root of the host, which may be old, unless the policy says how old (T-31).
#[tokio::test]
async fn an_old_root_still_verifies_unless_the_policy_says_otherwise() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    world.signed(&of_image(), &build(&[], WORKFLOW));
    let dir = host_of(&world);
    let expires = MIDNIGHT + 7 * DAY;
    let floor = tuf::PUBLISHED.0;
    let requirement = |more: &str| format!(r#"{{"type":"sigstoreSigned",{OURS}{more}}}"#);
    let month = |days: i64| requirement(&format!(r#","trustedRootMaxAge":"{days}d""#));
    let days = (floor - expires) / DAY + 1;
    for (requirement, now, code, stale) in [
        (requirement(""), expires, None, false),
        (requirement(""), expires + STALE_AFTER, None, false),
        (requirement(""), expires + STALE_AFTER + 1, None, true),
        (month(days), floor, None, true),
        (month(days), expires + days * DAY, None, true),
        (month(days), expires + days * DAY + 1, Some("trusted-root-stale"), true),
        (month(1), floor, Some("trusted-root-stale"), true),
        // T-19: a clock that is set back makes nothing young again.
        (month(days), floor - 1, Some("clock-implausible"), false),
        (requirement(""), 0, None, false),
    ] {
        let (report, _) = world.judge_on(&requirement, environment(&dir), Timestamp(now)).await;
        assert_eq!(report.code.as_deref(), code, "{requirement} {now}: {report:?}");
        assert_eq!(report.decided, code != Some("clock-implausible"));
        if report.decided {
            let [used] = report.trusted_roots.as_slice() else { panic!("{report:?}") };
            assert!(used.source.ends_with("sigstore.json"));
            assert_eq!(used.current_until, Some(time(expires)));
            assert_eq!(used.stale, stale, "{now}");
            let warned = report.warnings.iter().any(|text| text.contains("vouchd trust update"));
            assert_eq!(warned, stale, "{:?}", report.warnings);
        }
    }
    // A file counts from its last change. Systems made of images set it to the epoch, which says nothing.
    let file = write(dir.path().join("root.json"), world.sigstore.trusted_root().to_string());
    let named = |more: &str| requirement(&format!(r#","trustedRootPath":"{}"{more}"#, file.display()));
    for (written, now, more, code) in [
        (floor, floor + DAY, r#","trustedRootMaxAge":"1d""#, None),
        (floor, floor + DAY + 1, r#","trustedRootMaxAge":"1d""#, Some("trusted-root-stale")),
        (1, floor, r#","trustedRootMaxAge":"30000d""#, Some("trusted-root-stale")),
        // A time that is still to come says nothing either.
        (floor + 1, floor, r#","trustedRootMaxAge":"1d""#, Some("trusted-root-stale")),
        (floor + 1, floor, "", None),
        (1, floor, "", None),
    ] {
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(written).unwrap());
        fs::File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
        let (report, _) = world.judge_on(&named(more), environment(&dir), Timestamp(now)).await;
        assert_eq!(report.code.as_deref(), code, "{report:?}");
    }
    // Without a root nothing is allowed.
    fs::remove_file(dir.path().join("var/lib/vouchd-trust/sigstore.json")).unwrap();
    let (report, _) = world.judge_on(&requirement(""), environment(&dir), Timestamp(floor)).await;
    assert_eq!((report.decided, report.code.as_deref()), (false, Some("trusted-root-invalid")));
}

/// T-19: what depends on the present time is not judged by a clock that cannot be right; all else is.
#[tokio::test]
async fn a_clock_that_went_back_decides_nothing() {
    let world = World::new();
    let key = write(world.rig.dir.path().join("key"), "");
    let path = key.display();
    for (requirement, depends) in [
        (format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{path}"}}"#), true),
        (
            format!(
                r#"{{"type":"sigstoreSigned","pki":{{"caRootsPath":"{path}","subjectEmail":"a@example.com"}}}}"#
            ),
            true,
        ),
        (format!(r#"{{"type":"sigstoreSigned","keyPath":"{path}"}}"#), false),
        (r#"{"type":"insecureAcceptAnything"}"#.to_owned(), false),
        (r#"{"type":"reject"}"#.to_owned(), false),
    ] {
        for (now, before) in [(0, true), (tuf::PUBLISHED.0 - 1, true), (tuf::PUBLISHED.0, false)] {
            let (report, asked) = world.judge_on(&requirement, Environment::system(), Timestamp(now)).await;
            let implausible = report.code.as_deref() == Some("clock-implausible");
            assert_eq!(implausible, depends && before, "{requirement}: {report:?}");
            assert!(!implausible || (!report.decided && asked.is_empty()), "{report:?}");
        }
    }
}
