//! [`LookasideUrl`]: where the signatures of a repository are, read as the reference reads URLs.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::diagnostic::escape;
use crate::digest::Digest;

/// A URL of a lookaside store. It may hold credentials, which `Display` and `Debug` leave out.
///
/// The grammar is that of Go's `net/url`, except that a host must be plain ASCII.
#[derive(Clone, PartialEq, Eq)]
pub struct LookasideUrl {
    /// Lower case; empty if there is none.
    scheme: String,
    rest: Rest,
    /// With the `?`, or empty.
    query: String,
    /// With the `#`, or empty.
    fragment: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Rest {
    /// `mailto:this`; nothing can be appended to it.
    Opaque(String),
    Hierarchical {
        authority: Option<Authority>,
        /// Percent-decoded.
        path: Vec<u8>,
    },
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Authority {
    userinfo: Option<String>,
    host: String,
}

impl LookasideUrl {
    /// Reads a URL; the error says what is wrong and repeats nothing of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err("it contains a control character");
        }
        let (text, fragment) = cut(text, '#');
        percent_decode(fragment)?;
        let (scheme, text) = split_scheme(text)?;
        let (text, query) = cut(text, '?');
        let rest = if !text.starts_with('/') {
            if !scheme.is_empty() {
                Rest::Opaque(text.to_owned())
            } else if text.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("its first path segment contains a colon");
            } else {
                Rest::Hierarchical { authority: None, path: percent_decode(text)? }
            }
        } else if let Some(text) = text.strip_prefix("//") {
            let path_start = text.find('/').unwrap_or(text.len());
            let (authority, path) = text.split_at(path_start);
            Rest::Hierarchical { authority: Some(Authority::parse(authority)?), path: percent_decode(path)? }
        } else {
            Rest::Hierarchical { authority: None, path: percent_decode(text)? }
        };
        let url = Self { scheme, rest, query: query.to_owned(), fragment: fragment.to_owned() };
        if url.is_http()
            && !matches!(&url.rest, Rest::Hierarchical { authority: Some(a), .. } if !a.host.is_empty())
        {
            return Err("it has no host");
        }
        Ok(url)
    }

    /// The URL of an absolute path on this host.
    pub fn from_path(path: PathBuf) -> Self {
        let path = path.into_os_string().into_vec();
        Self {
            scheme: "file".to_owned(),
            rest: Rest::Hierarchical { authority: Some(Authority::default()), path },
            query: String::new(),
            fragment: String::new(),
        }
    }

    /// The scheme, lower case; `file`, `http` and `https` can be read (rule K-7).
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether it is read over HTTP, with or without TLS.
    pub fn is_http(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }

    /// The path of a `file` URL; its host does not matter (rule K-7).
    pub fn file_path(&self) -> Option<PathBuf> {
        match &self.rest {
            Rest::Hierarchical { path, .. } if self.scheme == "file" => {
                Some(PathBuf::from(OsString::from_vec(path.clone())))
            }
            Rest::Hierarchical { .. } | Rest::Opaque(_) => None,
        }
    }

    /// The signature number `n`, from 1, of the manifest with this digest (rules K-1, K-2).
    pub fn signature(&self, digest: &Digest, n: usize) -> Self {
        self.appended(&format!("@{}={}/signature-{n}", digest.algorithm().name(), digest.hex()))
    }

    /// The URL with the credentials that it holds: for the HTTP client only, never to be printed.
    pub fn with_credentials(&self) -> String {
        self.text(true)
    }

    /// Whether it holds any: user and password, or a token in the query.
    pub fn has_credentials(&self) -> bool {
        let has_user = match &self.rest {
            Rest::Hierarchical { authority: Some(authority), .. } => authority.userinfo.is_some(),
            Rest::Hierarchical { authority: None, .. } | Rest::Opaque(_) => false,
        };
        has_user || !self.query.is_empty()
    }

    /// The URL with `more` after the path, as it stands (rule K-2).
    pub(super) fn appended(&self, more: &str) -> Self {
        let mut url = self.clone();
        match &mut url.rest {
            Rest::Hierarchical { path, .. } => path.extend_from_slice(more.as_bytes()),
            Rest::Opaque(_) => {}
        }
        url
    }

    fn text(&self, secrets: bool) -> String {
        let mut out = String::new();
        if !self.scheme.is_empty() {
            out.push_str(&self.scheme);
            out.push(':');
        }
        match &self.rest {
            Rest::Opaque(opaque) => out.push_str(opaque),
            Rest::Hierarchical { authority, path } => {
                if let Some(authority) = authority {
                    out.push_str("//");
                    if let Some(userinfo) = authority.userinfo.as_ref().filter(|_| secrets) {
                        out.push_str(userinfo);
                        out.push('@');
                    }
                    out.push_str(&authority.host);
                }
                percent_encode(path, &mut out);
            }
        }
        // Stores behind signed URLs keep their token in the query.
        out.push_str(if secrets || self.query.is_empty() { &self.query } else { "?..." });
        out.push_str(&self.fragment);
        out
    }
}

impl fmt::Display for LookasideUrl {
    /// Without user, password and query, and fit for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.text(false)))
    }
}

impl fmt::Debug for LookasideUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookasideUrl({self})")
    }
}

impl Authority {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (userinfo, host) = match text.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, text),
        };
        if let Some(userinfo) = userinfo {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%".contains(&b);
            if !userinfo.bytes().all(allowed) {
                return Err("its user or password contains a character that must be percent-encoded");
            }
            percent_decode(userinfo)?;
        }
        let (name, port) = match host.strip_prefix('[') {
            Some(bracketed) => {
                let (address, port) =
                    bracketed.split_once(']').ok_or("it has a \"[\" without \"]\" in its host")?;
                address.parse::<Ipv6Addr>().map_err(|_| "its host is no IPv6 address")?;
                ("", port)
            }
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b);
        if !name.bytes().all(allowed) {
            return Err("its host contains a character that is not allowed");
        }
        let port = port.strip_prefix(':').unwrap_or(port);
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err("its port is not a number");
        }
        Ok(Self { userinfo: userinfo.map(str::to_owned), host: host.to_owned() })
    }
}

/// `before` and, beginning with the separator, the rest.
fn cut(text: &str, separator: char) -> (&str, &str) {
    text.split_at(text.find(separator).unwrap_or(text.len()))
}

/// The scheme in lower case, empty if the text has none, and what follows its colon.
fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    let Some((scheme, rest)) = text.split_once(':') else { return Ok((String::new(), text)) };
    let mut bytes = scheme.bytes();
    match bytes.next() {
        None => Err("it has nothing before its first colon"),
        Some(first)
            if first.is_ascii_alphabetic()
                && bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
        {
            Ok((scheme.to_ascii_lowercase(), rest))
        }
        Some(_) => Ok((String::new(), text)),
    }
}

fn percent_decode(text: &str) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "it has a \"%\" without two hexadecimal digits after it";
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match byte {
            b'%' => {
                let (high, low) = (digit().ok_or(WRONG)?, digit().ok_or(WRONG)?);
                out.push(high << 4 | low);
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

fn percent_encode(path: &[u8], out: &mut String) {
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_the_reference_reads_them() {
        for (text, appended) in [
            ("https://x.example/a/", Ok("https://x.example/a//r")),
            ("HTTPS://X.example", Ok("https://X.example/r")),
            ("https://x.example/s?k=v#f", Ok("https://x.example/s/r?k=v#f")),
            ("https://x.example/a%2Fb%20c!", Ok("https://x.example/a/b%20c%21/r")),
            ("https://u:p%40@x.example:80", Ok("https://u:p%40@x.example:80/r")),
            ("https://[::1]:5000/s", Ok("https://[::1]:5000/s/r")),
            ("file:///var", Ok("file:///var/r")),
            ("file:/var", Ok("file:/var/r")),
            ("file:rel", Ok("file:rel")),
            ("mailto:a@b", Ok("mailto:a@b")),
            ("1.5", Ok("1.5/r")),
            ("", Ok("/r")),
            (":x", Err("it has nothing before its first colon")),
            ("1:x", Err("its first path segment contains a colon")),
            ("https://x.example/%zz", Err("it has a \"%\" without two hexadecimal digits after it")),
            ("https://x.example:p", Err("its port is not a number")),
            ("https://x.example:1:2", Err("its port is not a number")),
            ("https://[::1", Err("it has a \"[\" without \"]\" in its host")),
            ("https://[::g]", Err("its host is no IPv6 address")),
            ("https://[::1]x", Err("its port is not a number")),
            ("https://x y", Err("its host contains a character that is not allowed")),
            ("https://a@b@c", Err("its user or password contains a character that must be percent-encoded")),
            ("https:///s", Err("it has no host")),
            ("https:s", Err("it has no host")),
            ("https://x\n", Err("it contains a control character")),
        ] {
            let found = LookasideUrl::parse(text).map(|url| url.appended("/r").with_credentials());
            assert_eq!(found, appended.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn credentials_are_found() {
        for (text, has_credentials) in [
            ("https://u:p@x.example/s", true),
            ("https://u@x.example/s", true),
            ("https://x.example/s?sig=1", true),
            ("https://x.example/s", false),
            ("file:///s", false),
        ] {
            let url = LookasideUrl::parse(text).unwrap();
            assert_eq!(url.has_credentials(), has_credentials, "{text}");
            assert_eq!(url.signature(&Digest::sha256(b""), 1).has_credentials(), has_credentials, "{text}");
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let url = LookasideUrl::parse("https://user:secret@x.example/s?token=secret").unwrap();
        assert_eq!(url.to_string(), "https://x.example/s?...");
        assert_eq!(format!("{url:?}"), "LookasideUrl(https://x.example/s?...)");
    }
}
