//! [`Proxies`]: which requests go by way of a proxy (rule H-8).

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// The proxies for `http` and `https` URLs, and the hosts that are reached without one.
///
/// As Go's `golang.org/x/net/http/httpproxy` reads the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Exceptions,
}

/// Their URLs may hold passwords.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies")
    }
}

/// No proxy for anything.
pub(super) static NONE: Proxies = Proxies { http: None, https: None, exceptions: Exceptions(Vec::new()) };

/// Why a proxy cannot be used. It does not repeat the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proxy for {scheme} URLs {detail}")]
pub struct NotUsable {
    scheme: &'static str,
    detail: String,
}

impl Proxies {
    /// The URLs of the proxies, and the exceptions parted by commas.
    ///
    /// A URL without a scheme is one of `http`; other schemes than `http` and `https` are errors.
    pub fn new(http: Option<&str>, https: Option<&str>, no_proxy: &str) -> Result<Self, NotUsable> {
        Ok(Self {
            http: http.map(|url| parse("http", url)).transpose()?,
            https: https.map(|url| parse("https", url)).transpose()?,
            exceptions: Exceptions::parse(no_proxy),
        })
    }

    /// The first exception that means nothing, if there is one.
    pub fn first_meaningless(no_proxy: &str) -> Option<&str> {
        no_proxy.split(',').find(|text| !text.trim().is_empty() && Exception::parse(text).is_none())
    }

    /// The proxy for this URL, if it has one. This host itself is never asked for through a proxy.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "http" => self.http.as_ref(),
            "https" => self.https.as_ref(),
            _ => None,
        }?;
        let host = bare(url.host_str()?);
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        (!local && !self.exceptions.hold(host, url.port_or_known_default())).then_some(proxy)
    }

    /// Whether a host of that name is one of the proxies.
    pub(super) fn are_at(&self, host: &str) -> bool {
        let address = |host: &str| host.parse::<IpAddr>().ok();
        let host = bare(host);
        let is_it = |at: &str| at == host || address(at).is_some_and(|at| address(host) == Some(at));
        self.all().filter_map(Url::host_str).any(|at| is_it(bare(at)))
    }

    /// Whether one of the proxies is reached over TLS.
    pub(super) fn are_over_tls(&self) -> bool {
        self.all().any(|proxy| proxy.scheme() == "https")
    }

    fn all(&self) -> impl Iterator<Item = &Url> {
        [&self.http, &self.https].into_iter().flatten()
    }
}

fn parse(scheme: &'static str, text: &str) -> Result<Url, NotUsable> {
    let unusable = |detail: &str| NotUsable { scheme, detail: detail.to_owned() };
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&whole).map_err(|error| unusable(&format!("is no URL: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => {
            Err(unusable("must begin with http:// or https://; others, such as socks5://, are not supported"))
        }
    }
}

/// An IPv6 address stands in brackets in a URL.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The hosts that are reached without a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Exceptions(Vec<Exception>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Exception {
    Everything,
    Network {
        address: IpAddr,
        bits: u8,
    },
    Host {
        address: IpAddr,
        port: Option<u16>,
    },
    /// `suffix` begins with a dot; `itself` if the domain without it counts as well.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Exceptions {
    /// Entries that mean nothing are passed over.
    fn parse(text: &str) -> Self {
        Self(text.split(',').filter_map(Exception::parse).collect())
    }

    fn hold(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        self.0.iter().any(|exception| match exception {
            Exception::Everything => true,
            Exception::Network { address: network, bits } => {
                address.is_some_and(|address| is_within(address, *network, *bits))
            }
            Exception::Host { address: only, port: at } => {
                address == Some(*only) && at.is_none_or(|at| Some(at) == port)
            }
            Exception::Domain { suffix, itself, port: at } => {
                let named =
                    host.ends_with(suffix.as_str()) || *itself && suffix.strip_prefix('.') == Some(&host);
                named && at.is_none_or(|at| Some(at) == port)
            }
        })
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            return bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .map(|bits| Self::Network { address, bits });
        }
        let (host, port) = match text.rsplit_once(':') {
            // More than one colon outside brackets is an address of IPv6.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().ok()?))
            }
            Some(_) | None => (text.as_str(), None),
        };
        let host = bare(host);
        if let Ok(address) = host.parse() {
            return Some(Self::Host { address, port });
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        match host.strip_prefix('.') {
            Some("") => None,
            Some(_) => Some(Self::Domain { suffix: host.to_owned(), itself: false, port }),
            None if host.is_empty() => None,
            None => Some(Self::Domain { suffix: format!(".{host}"), itself: true, port }),
        }
    }
}

/// RFC 4632, section 3.1.
fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        let whole = usize::from(bits / 8);
        let mask = 0xff_u8.checked_shl(u32::from(8 - bits % 8)).unwrap_or(0);
        let rest = |bytes: &[u8]| bytes.get(whole).map_or(0, |byte| byte & mask);
        a.get(..whole) == b.get(..whole) && rest(a) == rest(b)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule H-8.
    #[test]
    fn exceptions_go_without_a_proxy() {
        for (no_proxy, url, proxied) in [
            ("", "https://quay.io/v2/", true),
            ("", "https://localhost/v2/", false),
            ("", "https://127.3.2.1:5000/v2/", false),
            ("", "https://[::1]:5000/v2/", false),
            ("*", "https://quay.io/", false),
            ("quay.io", "https://quay.io/", false),
            ("quay.io", "https://QUAY.io/", false),
            ("quay.io", "https://cdn.quay.io/", false),
            ("quay.io", "https://notquay.io/", true),
            (".quay.io", "https://quay.io/", true),
            (".quay.io", "https://cdn.quay.io/", false),
            ("*.quay.io", "https://cdn.quay.io/", false),
            ("*.quay.io", "https://quay.io/", true),
            ("quay.io:5000", "https://quay.io/", true),
            ("quay.io:5000", "https://quay.io:5000/", false),
            ("quay.io:443", "https://quay.io/", false),
            (" a , QUAY.io ", "https://quay.io/", false),
            ("10.0.0.0/8", "https://10.200.1.2/", false),
            ("10.0.0.0/8", "https://11.0.0.1/", true),
            ("10.0.0.0/9", "https://10.128.0.1/", true),
            ("10.0.0.0/0", "https://11.0.0.1/", false),
            ("10.0.0.0/33", "https://10.0.0.0/", true),
            ("10.0.0.1", "https://10.0.0.1/", false),
            ("10.0.0.1:80", "https://10.0.0.1/", true),
            ("fd00::/16", "https://[fd00::1]/", false),
            ("fd00::1", "https://[fd00::1]/", false),
            ("[fd00::1]:443", "https://[fd00::1]/", false),
            (",,.,", "https://quay.io/", true),
        ] {
            let proxies = Proxies::new(Some("p:1"), Some("p:2"), no_proxy).unwrap();
            assert_eq!(proxies.of(&Url::parse(url).unwrap()).is_some(), proxied, "{no_proxy} {url}");
        }
    }

    #[test]
    fn exceptions_that_mean_nothing_are_found() {
        for (no_proxy, found) in [
            ("", None),
            ("a.example, *.b.example:80,[::1]:443,10.0.0.0/8,*", None),
            ("a.example,10.0.0.0/99", Some("10.0.0.0/99")),
            ("https://a.example", Some("https://a.example")),
            ("a.example:port", Some("a.example:port")),
            (",.,", Some(".")),
        ] {
            assert_eq!(Proxies::first_meaningless(no_proxy), found, "{no_proxy}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = Proxies::new(Some("http://u:p@one:3128"), Some("two:3129"), "").unwrap();
        assert!(!format!("{proxies:?}").contains("one"));
        let of = |url| proxies.of(&Url::parse(url).unwrap()).map(Url::as_str);
        assert_eq!(of("http://a.example/"), Some("http://u:p@one:3128/"));
        assert_eq!(of("https://a.example/"), Some("http://two:3129/"));
        assert!(proxies.are_at("one") && proxies.are_at("two") && !proxies.are_at("a.example"));
        let proxies = Proxies::new(None, Some("https://[::FFFF:10.0.0.1]:3128"), "").unwrap();
        assert!(["::ffff:10.0.0.1", "[::ffff:a00:1]"].iter().all(|host| proxies.are_at(host)));
        assert!(proxies.are_over_tls() && !proxies.are_at("::1"));
        assert_eq!(Proxies::default().of(&Url::parse("https://a.example/").unwrap()), None);
        for bad in ["socks5://one", "http://", "http://a b"] {
            let error = Proxies::new(None, Some(bad), "").unwrap_err().to_string();
            assert!(error.starts_with("the proxy for https URLs"), "{error}");
        }
    }
}
