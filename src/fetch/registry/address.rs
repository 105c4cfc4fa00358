//! [`Reach`]: where connections may lead, by the class of the address and by the URL that names it (T-29).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};

use reqwest::Url;
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, LOCATION};
use tokio::sync::Semaphore;

use crate::fetch::registry::Proxies;

/// Where connections may lead (T-29).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// To the server that was configured, whatever its address.
    Configured,
    /// To the same, for a user who must not reach what only this host may.
    Guarded,
    /// To a server that a server of this class named: to public addresses, and to those of the same class.
    Steered(Class),
    /// The same for such a user: only where both lead.
    GuardedSteered(Class),
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        match (self, Class::of(address)) {
            (Self::Configured, _) => true,
            (Self::Guarded, class) => !matches!(class, Class::LinkLocal | Class::Metadata | Class::Reserved),
            (Self::Steered(_), Class::Public) => true,
            (Self::Steered(_), Class::Metadata | Class::Reserved) => false,
            (Self::Steered(home), class) => home == class,
            (Self::GuardedSteered(home), _) => {
                Self::Guarded.allows(address) && Self::Steered(home).allows(address)
            }
        }
    }

    /// Whether it is for a user who must not reach everything.
    pub(super) fn is_guarded(self) -> bool {
        match self {
            Self::Configured | Self::Steered(_) => false,
            Self::Guarded | Self::GuardedSteered(_) => true,
        }
    }

    /// Addresses in URLs never come to the resolver.
    pub(super) fn allows_literal(self, url: &Url) -> bool {
        literal(url).is_none_or(|address| self.allows(address))
    }
}

/// Looks names up and leaves out the addresses that are out of reach.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) reach: Reach,
    /// The administrator's choice, wherever they are.
    pub(super) proxies: Proxies,
}

impl Resolve for Resolver {
    /// Checked where connections are made, so that no later change of the name matters.
    fn resolve(&self, name: Name) -> Resolving {
        let reach = if self.proxies.are_at(name.as_str()) { Reach::Configured } else { self.reach };
        Box::pin(async move {
            let found = look_up(name.as_str().to_owned(), reach).await?;
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(NotAllowed.into());
            }
            let addresses: reqwest::dns::Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// The addresses of a name. A lookup that nobody waits for any more goes on, and keeps its turn: each takes a thread,
/// of which others need some (T-26).
async fn look_up(name: String, reach: Reach) -> io::Result<Vec<SocketAddr>> {
    static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(LOOKING_UP)));
    static FOR_USERS: LazyLock<Arc<Semaphore>> =
        LazyLock::new(|| Arc::new(Semaphore::new(LOOKING_UP_FOR_USERS)));
    let of_users = reach.is_guarded().then_some(&FOR_USERS);
    let mut turns = Vec::new();
    for all in of_users.into_iter().chain([&LOOKUPS]) {
        turns.push(Arc::clone(all).acquire_owned().await.map_err(io::Error::other)?);
    }
    let looking = tokio::task::spawn_blocking(move || {
        let _turns = turns;
        (name.as_str(), 0).to_socket_addrs().map(Iterator::collect)
    });
    looking.await.map_err(io::Error::other)?
}

/// Most names looked up at the same time: 16, of the 48 threads that a daemon has for whatever waits.
const LOOKING_UP: usize = 16;

/// Most of them for users other than root.
const LOOKING_UP_FOR_USERS: usize = 8;

/// A registry named a host that it must not name (T-29).
#[derive(Debug, thiserror::Error)]
#[error("has only addresses to which a registry must not lead")]
pub(super) struct NotAllowed;

/// What kind of network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    LinkLocal,
    Loopback,
    /// Where clouds tell a machine its secrets, unless that is link-local.
    Metadata,
    Private,
    Public,
    /// Multicast, broadcast and tunnels that hide another address.
    Reserved,
}

impl Class {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    /// The class of the address that a URL itself holds.
    pub(super) fn of_literal(url: &Url) -> Option<Self> {
        literal(url).map(Self::of)
    }

    /// IANA IPv4 Special-Purpose Address Registry.
    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            // Linux connects 0.0.0.0 to itself.
            [0 | 127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            // Alibaba Cloud; Azure's WireServer.
            [100, 100, 100, 200] | [168, 63, 129, 16] => Self::Metadata,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => {
                Self::Private
            }
            [192, 0, 0, _] | [224..=255, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    /// IANA IPv6 Special-Purpose Address Registry; an embedded IPv4 address counts as itself.
    fn of_v6(address: Ipv6Addr) -> Self {
        let embedded = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Loopback,
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                embedded(high, low)
            }
            [0, 0, 0, 0, 0xffff, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
            // Amazon EC2 and EKS; Google Compute Engine; Oracle; Scaleway.
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23]
            | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
            | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
            | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => Self::Metadata,
            [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0x2001, 0, ..] | [0xff00..=0xffff, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Where a redirect leads, if it may.
pub(super) fn redirect_target(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or("names no place")?;
    let target = from.join(location).map_err(|e| format!("leads to no URL: {e}"))?;
    // Only a lookaside URL and an insecure registry can be plain HTTP to begin with.
    check_steered_url(&target, (from.scheme(), target.scheme()) == ("http", "http"))?;
    Ok(target)
}

/// A URL that the registry names: HTTPS unless `plain` is allowed as well, and no credentials in it.
pub(super) fn check_steered_url(url: &Url, plain: bool) -> Result<(), String> {
    if url.scheme() != "https" && !(plain && url.scheme() == "http") {
        Err("is not https".to_owned())
    } else if has_user(url) {
        Err("holds a user or password".to_owned())
    } else {
        Ok(())
    }
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

pub(super) fn same_server(a: &Url, b: &Url) -> bool {
    let server =
        |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    server(a) == server(b)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn addresses_have_the_class_of_their_network() {
        for (address, class) in [
            ("8.8.8.8", Class::Public),
            ("172.15.0.1", Class::Public),
            ("172.16.0.1", Class::Private),
            ("172.31.255.255", Class::Private),
            ("10.0.0.1", Class::Private),
            ("192.168.0.1", Class::Private),
            ("100.64.0.1", Class::Private),
            ("169.254.169.254", Class::LinkLocal),
            ("100.100.100.200", Class::Metadata),
            ("100.100.100.201", Class::Private),
            ("168.63.129.16", Class::Metadata),
            ("168.63.129.17", Class::Public),
            ("fd00:ec2::254", Class::Metadata),
            ("fd00:ec2::255", Class::Private),
            ("fd20:ce::254", Class::Metadata),
            ("fd00:ec2::23", Class::Metadata),
            ("fd00:c1::a9fe:a9fe", Class::Metadata),
            ("fd00:42::42", Class::Metadata),
            ("::ffff:168.63.129.16", Class::Metadata),
            ("127.0.0.1", Class::Loopback),
            ("0.0.0.0", Class::Loopback),
            ("224.0.0.1", Class::Reserved),
            ("255.255.255.255", Class::Reserved),
            ("2600::1", Class::Public),
            ("::", Class::Loopback),
            ("::1", Class::Loopback),
            ("::ffff:127.0.0.1", Class::Loopback),
            ("::ffff:8.8.8.8", Class::Public),
            ("::127.0.0.1", Class::Loopback),
            ("::ffff:0:10.0.0.1", Class::Private),
            ("64:ff9b::a9fe:a9fe", Class::LinkLocal),
            ("64:ff9b:1::1", Class::Private),
            ("2002:7f00:1::", Class::Loopback),
            ("2001:0:1::1", Class::Reserved),
            ("fd00::1", Class::Private),
            ("fec0::1", Class::Private),
            ("fe80::1", Class::LinkLocal),
            ("febf::1", Class::LinkLocal),
            ("ff02::1", Class::Reserved),
        ] {
            assert_eq!(Class::of(address.parse().unwrap()), class, "{address}");
        }
    }

    #[test]
    fn a_registry_leads_to_public_addresses_and_to_its_own_kind() {
        let classes = [Class::LinkLocal, Class::Loopback, Class::Private, Class::Public];
        let address = |class| match class {
            Class::LinkLocal => "https://169.254.0.1/",
            Class::Loopback => "https://[::1]/",
            Class::Metadata => "https://168.63.129.16/",
            Class::Private => "https://0xa000001/",
            Class::Public => "https://8.8.8.8/",
            Class::Reserved => "https://224.0.0.1/",
        };
        for home in classes {
            for there in classes {
                let url = Url::parse(address(there)).unwrap();
                let allowed = there == Class::Public || there == home;
                assert_eq!(Reach::Steered(home).allows_literal(&url), allowed, "{home:?} to {there:?}");
                assert!(Reach::Configured.allows_literal(&url));
            }
            let reserved = Url::parse(address(Class::Reserved)).unwrap();
            assert!(!Reach::Steered(home).allows_literal(&reserved));
        }
        for (class, alike) in [(Class::Reserved, "224.0.0.1"), (Class::Metadata, "fd00:ec2::254")] {
            assert!(!Reach::Steered(class).allows(alike.parse().unwrap()));
        }
    }

    // Rule T-29.
    #[test]
    fn a_user_does_not_reach_what_only_this_host_may() {
        for (address, allowed) in [
            ("8.8.8.8", true),
            ("10.0.0.1", true),
            ("127.0.0.1", true),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("100.100.100.200", false),
            ("168.63.129.16", false),
            ("fd00:ec2::254", false),
            ("192.0.0.192", false),
            ("224.0.0.1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Reach::Guarded.allows(address), allowed, "{address}");
            let home = Class::of(address);
            assert_eq!(Reach::GuardedSteered(home).allows(address), allowed, "{address}");
            let is_public = home == Class::Public;
            assert_eq!(Reach::GuardedSteered(Class::Public).allows(address), is_public, "{address}");
        }
    }

    #[tokio::test]
    async fn names_are_checked_when_they_are_resolved() {
        let localhost = || "localhost".parse::<Name>().unwrap();
        let resolver = |reach| Resolver { reach, proxies: Proxies::default() };
        for home in [Class::Public, Class::Private, Class::LinkLocal, Class::Reserved] {
            assert!(resolver(Reach::Steered(home)).resolve(localhost()).await.is_err(), "{home:?}");
        }
        for reach in [Reach::Configured, Reach::Steered(Class::Loopback)] {
            assert!(resolver(reach).resolve(localhost()).await.unwrap().next().is_some(), "{reach:?}");
        }
        // A proxy is where the administrator says, and what it is asked for is its own business.
        let proxies = Proxies::new(None, Some("localhost:3128"), "").unwrap();
        let steered = Resolver { reach: Reach::Steered(Class::Public), proxies };
        assert!(steered.resolve(localhost()).await.unwrap().next().is_some());
    }

    #[test]
    fn redirects_stay_on_https_and_carry_no_credentials() {
        for (from, location, target) in [
            ("https://h/a/b", "/c", Some("https://h/c")),
            ("https://h/a/b", "https://other:1/x?y#z", Some("https://other:1/x?y#z")),
            ("https://h/a", "//other/x", Some("https://other/x")),
            ("https://h/a", "http://h/a", None),
            ("https://h/a", "ftp://h/a", None),
            ("https://h/a", "data:x", None),
            ("https://h/a", "https://u@h/a", None),
            ("https://h/a", "https://:p@h/a", None),
            ("https://h/a", "https://[::1/a", None),
            ("http://h/a", "/b", Some("http://h/b")),
            ("http://h/a", "https://h/b", Some("https://h/b")),
            ("http://h/a", "http://u:p@h/b", None),
        ] {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
            let found = redirect_target(&Url::parse(from).unwrap(), &headers);
            assert_eq!(found.as_ref().ok().map(Url::as_str), target, "{from} to {location}");
        }
        assert!(redirect_target(&Url::parse("https://h/").unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn servers_are_the_same_with_scheme_host_and_port() {
        for (a, b, same) in [
            ("https://h/a", "https://h:443/b", true),
            ("https://H/a", "https://h/b", true),
            ("https://h/", "https://h:444/", false),
            ("https://h/", "http://h:443/", false),
            ("https://h/", "https://h.h/", false),
            ("https://h/", "https://h./", false),
        ] {
            assert_eq!(same_server(&Url::parse(a).unwrap(), &Url::parse(b).unwrap()), same, "{a} {b}");
        }
    }
}
