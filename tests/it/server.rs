//! Servers on loopback that answer by a script, with certificates of a rig's own authority.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use vouchd::fetch::credentials::{Programs, Source};
use vouchd::fetch::registry::{Client, Document, Errand, Settings};
use vouchd::fetch::{Budget, Error};
use vouchd::reference::Named;

pub(crate) const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// A certification authority that the clients of one test trust.
pub(crate) struct Rig {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) files: AtomicUsize,
}

#[derive(Clone, Copy)]
pub(crate) enum ClientCertificate {
    Accepted,
    Required,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("certs")).unwrap();
        let rig = Self { issuer, dir, files: AtomicUsize::new(0) };
        rig.write("ca.crt", rig.issuer.pem().as_bytes());
        rig
    }

    pub(crate) fn certs(&self) -> std::path::PathBuf {
        self.dir.path().join("certs")
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.certs().join(name), content).unwrap();
    }

    pub(crate) fn add_client_certificate(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.cert"), certificate.pem().as_bytes());
        self.write(&format!("{name}.key"), key.serialize_pem().as_bytes());
    }

    pub(crate) fn settings(&self, auth: Source) -> Settings {
        Settings { cert_dir: Some(self.certs()), auth, ..Settings::default() }
    }

    pub(crate) fn client(&self, auth: Source) -> Client {
        Client::new(self.settings(auth))
    }

    pub(crate) fn auth_file(&self, content: &str) -> Source {
        let path = self.dir.path().join(format!("auth{}.json", self.files.fetch_add(1, Ordering::SeqCst)));
        std::fs::write(&path, content).unwrap();
        named(&path)
    }

    pub(crate) fn login(&self, server: &Server, user_password: &str) -> Source {
        let auth = STANDARD.encode(user_password);
        self.auth_file(&format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", server.host))
    }

    /// The manifest at tag 1, for an anonymous client.
    pub(crate) async fn tag(&self, server: &Server) -> Result<Document, Error> {
        self.client(Source::Anonymous)
            .manifest(&Errand::new(&server.image(), &Budget::new(), soon()), "1")
            .await
    }

    pub(crate) async fn server(
        &self,
        script: impl Fn(&str, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        self.server_named("127.0.0.1", None, script).await
    }

    pub(crate) async fn server_named(
        &self,
        name: &str,
        client: Option<ClientCertificate>,
        script: impl Fn(&str, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some(wanted) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(self.issuer.der().clone()).unwrap();
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(match wanted {
                    ClientCertificate::Accepted => verifier.allow_unauthenticated().build().unwrap(),
                    ClientCertificate::Required => verifier.build().unwrap(),
                })
            }
        };
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(chain, key).unwrap();
        Server::start(Some(TlsAcceptor::from(Arc::new(config))), Box::new(script)).await
    }

    pub(crate) async fn plain_server(
        &self,
        script: impl Fn(&str, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Server::start(None, Box::new(script)).await
    }
}

pub(crate) type Script = Box<dyn Fn(&str, &Seen) -> Reply + Send + Sync>;

/// A server that answers by a script and keeps what it was asked.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(tls: Option<TlsAcceptor>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (seen, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let state = (Arc::clone(&seen), Arc::clone(&connections), host.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            let (seen, connections, host, script) = state;
            while let Ok((stream, _)) = listener.accept().await {
                // Else the second of two writes waits for an answer to the first.
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, host, script, tls) =
                    (Arc::clone(&seen), host.clone(), Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, false, &seen, &host, &script).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            let client_certificate = stream.get_ref().1.peer_certificates().is_some();
                            serve(stream, client_certificate, &seen, &host, &script).await;
                        }
                    }
                });
            }
        });
        Self { host, seen, connections, task }
    }

    pub(crate) fn image(&self) -> Named {
        Named::parse(&format!("{}/ns/app:1", self.host)).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen().len()
    }

    pub(crate) fn only_request(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) client_certificate: bool,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        announced: Option<usize>,
        delay: Duration,
    },
    /// One byte of a good answer now and then.
    Drip,
    /// The same after a status that is an error.
    DripFailure,
    DripHeaders,
    /// Chunks without end.
    Endless,
    EndlessFailure,
    /// Nothing, and the connection stays open.
    Hang,
    /// These bytes, and the end of the connection.
    Raw(&'static str),
}

impl Reply {
    pub(crate) fn status(status: u16, body: &str) -> Self {
        let (headers, body) = (Vec::new(), body.as_bytes().to_vec());
        Self::Answer { status, headers, body, announced: None, delay: Duration::ZERO }
    }

    pub(crate) fn ok(bytes: &[u8]) -> Self {
        let (headers, body) = (Vec::new(), bytes.to_vec());
        Self::Answer { status: 200, headers, body, announced: None, delay: Duration::ZERO }
    }

    pub(crate) fn manifest(bytes: &[u8]) -> Self {
        Self::ok(bytes).with("Content-Type", OCI)
    }

    pub(crate) fn oci_error(status: u16, code: &str, message: &str) -> Self {
        Self::status(status, &format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{message}\"}}]}}"))
    }

    pub(crate) fn challenge(challenge: &str) -> Self {
        Self::oci_error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge)
    }

    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::status(status, "").with("Location", location)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Claims this length, whatever the body.
    pub(crate) fn announcing(mut self, length: usize) -> Self {
        if let Self::Answer { announced, .. } = &mut self {
            *announced = Some(length);
        }
        self
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        if let Self::Answer { delay, .. } = &mut self {
            *delay = wait;
        }
        self
    }
}

/// HTTP/1.1 on one connection, until one side has had enough.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client_certificate: bool,
    seen: &Mutex<Vec<Seen>>,
    host: &str,
    script: &Script,
) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream).await {
        request.client_certificate = client_certificate;
        let reply = script(host, &request);
        seen.lock().unwrap().push(request);
        if write_reply(&mut stream, reply).await.is_none() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

pub(crate) async fn read_request(
    stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>,
) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let mut first = lines[0].split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut seen = Seen { method, path, headers, body: String::new(), client_certificate: false };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}

/// None if the connection is to end.
pub(crate) async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> Option<()> {
    let chunked = |status: u16| {
        format!("HTTP/1.1 {status} x\r\nContent-Type: {OCI}\r\nTransfer-Encoding: chunked\r\n\r\n")
    };
    match reply {
        Reply::Answer { status, headers, body, announced, delay } => {
            tokio::time::sleep(delay).await;
            let mut head = format!("HTTP/1.1 {status} x\r\n");
            if !matches!(status, 204 | 304) {
                head += &format!("Content-Length: {}\r\n", announced.unwrap_or(body.len()));
            }
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += "\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
            stream.flush().await.ok()
        }
        Reply::Drip => drip(stream, &chunked(200), "1\r\n{\r\n").await,
        Reply::DripFailure => drip(stream, &chunked(404), "1\r\n{\r\n").await,
        Reply::DripHeaders => drip(stream, "HTTP/1.1 200 x\r\n", "A: b\r\n").await,
        Reply::Endless => flood(stream, &chunked(200)).await,
        Reply::EndlessFailure => flood(stream, &chunked(404)).await,
        Reply::Hang => std::future::pending().await,
        Reply::Raw(bytes) => {
            stream.write_all(bytes.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            None
        }
    }
}

pub(crate) async fn drip(stream: &mut (impl AsyncWrite + Unpin), head: &str, piece: &str) -> Option<()> {
    stream.write_all(head.as_bytes()).await.ok()?;
    loop {
        stream.write_all(piece.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn flood(stream: &mut (impl AsyncWrite + Unpin), head: &str) -> Option<()> {
    stream.write_all(head.as_bytes()).await.ok()?;
    let chunk = [&b"10000\r\n"[..], &[b'{'; 0x10000], b"\r\n"].concat();
    loop {
        stream.write_all(&chunk).await.ok()?;
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(crate) fn bearer(host: &str) -> String {
    format!("Bearer realm=\"https://{host}/token\",service=\"svc\"")
}

/// An authentication file whose helpers are not there.
pub(crate) fn named(path: &std::path::Path) -> Source {
    Source::named(path.to_owned(), Programs::User { uid: 0, path: std::ffi::OsString::new() })
}
