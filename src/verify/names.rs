//! [`Names`] and [`Constraints`]: for whom a certificate is, and for whom an authority may issue; RFC 5280, 4.2.1.6
//! and 4.2.1.10, as Go's crypto/x509 reads them (rules C-33, C-35, C-42).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};

/// The subject alternative names that count. None is compared with a pattern but by [`Names::include_host`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::verify) struct Names {
    dns: Vec<String>,
    emails: Vec<String>,
    addresses: Vec<IpAddr>,
    /// Each can be read by [`uri_host`].
    uris: Vec<String>,
}

impl Names {
    /// The names, or what is wrong with them.
    pub(in crate::verify) fn of(extension: &SubjectAltName) -> Result<Self, &'static str> {
        if extension.0.len() > NAMES {
            return Err("it has more than 128 names");
        }
        let mut names = Self::default();
        for name in &extension.0 {
            match name {
                GeneralName::Rfc822Name(email) => names.emails.push(email.to_string()),
                GeneralName::DnsName(name) => names.dns.push(name.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => {
                    uri_host(uri.as_str()).ok_or("one of its names is not a URI that can be read")?;
                    names.uris.push(uri.to_string());
                }
                GeneralName::IpAddress(bytes) => {
                    let address = address(bytes.as_bytes()).ok_or("one of its names is not an IP address")?;
                    names.addresses.push(address);
                }
                GeneralName::DirectoryName(_)
                | GeneralName::EdiPartyName(_)
                | GeneralName::OtherName(_)
                | GeneralName::RegisteredId(_) => {}
            }
        }
        Ok(names)
    }

    /// Whether there is no name of a form that counts.
    pub(in crate::verify) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether one of the e-mail addresses is exactly this (rules C-35, C-42).
    pub(in crate::verify) fn include_email(&self, email: &str) -> bool {
        self.emails.iter().any(|name| name == email)
    }

    /// Whether they are for this host, as in TLS: an IP address is compared with addresses, another name with DNS
    /// names in any case, of which the left-most label may be `*` (rule C-42).
    pub(in crate::verify) fn include_host(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).filter(|h| !h.is_empty());
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            return self.addresses.iter().any(|name| name.to_canonical() == address.to_canonical());
        }
        let relative = host.strip_suffix('.').unwrap_or(host);
        self.dns.iter().any(|name| {
            if is_host(relative, false) && is_host(name, true) {
                matches_pattern(name, relative)
            } else {
                // What is no host name is only ever itself.
                !matches!(name.as_str(), "" | ".") && name.eq_ignore_ascii_case(host)
            }
        })
    }

    /// The names for messages.
    pub(in crate::verify) fn list(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let names = self.emails.iter().chain(&self.uris).chain(&self.dns).cloned().chain(addresses);
        let mut names: Vec<String> = names.take(SHOWN + 1).collect();
        if names.len() > SHOWN {
            names.pop();
            names.push("others".to_owned());
        }
        names.join(", ")
    }
}

/// Host names of Go's crypto/x509: labels of letters, digits, `-` but not first, and `_`.
fn is_host(name: &str, pattern: bool) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let rest = if pattern { name.strip_prefix("*.").unwrap_or(name) } else { name };
    rest.split('.').all(is_label)
}

fn matches_pattern(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// The host of a URI in the strict syntax of RFC 3986 with a scheme, empty if it has none.
///
/// User names, IPv6 literals and encoded hosts are refused: Fulcio writes none, and readers differ on them.
fn uri_host(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !is_scheme || !has_uri_characters(rest) {
        return None;
    }
    let Some(rest) = rest.strip_prefix("//") else { return Some("") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let is_port = port.bytes().all(|b| b.is_ascii_digit());
    (is_name && is_port && is_domain(host, false)).then_some(host)
}

/// RFC 3986, 2: every character is allowed somewhere, and `%` begins two hexadecimal digits.
fn has_uri_characters(text: &str) -> bool {
    let mut pieces = text.split('%');
    let plain = |piece: &str| {
        piece.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&b))
    };
    pieces.next().is_none_or(plain)
        && pieces.all(|piece| {
            let digits = piece.as_bytes().get(..2);
            plain(piece) && digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit))
        })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(four)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| IpAddr::V6(Ipv6Addr::from(sixteen)))
}

/// Visible ASCII in labels that are not empty, no dot at the end; a constraint may begin with a dot.
fn is_domain(name: &str, constraint: bool) -> bool {
    let rest = if constraint { name.strip_prefix('.').unwrap_or(name) } else { name };
    name.is_empty() || rest.split('.').all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_graphic()))
}

/// The two parts of an e-mail address; RFC 5321, 4.1.2, `Mailbox`, without quoting.
fn mailbox(email: &str) -> Option<(&str, &str)> {
    let (local, domain) = email.split_once('@')?;
    let is_atom = |atom: &str| {
        let is_atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
        !atom.is_empty() && atom.bytes().all(is_atext)
    };
    (local.split('.').all(is_atom) && !domain.is_empty() && is_domain(domain, false))
        .then_some((local, domain))
}

/// What a name constraints extension says of the names that count; RFC 5280, 4.2.1.10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Constraints {
    permitted: Subtrees,
    excluded: Subtrees,
    /// Whether it also speaks of names of other forms, which cannot be compared.
    pub has_other_forms: bool,
}

/// Subtrees by the form of name that they are about; where there are none, names of that form are not restricted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Subtrees {
    dns: Vec<String>,
    email_domains: Vec<String>,
    mailboxes: Vec<(String, String)>,
    networks: Vec<Network>,
    uris: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4 { address: u32, mask: u32 },
    V6 { address: u128, mask: u128 },
}

impl Constraints {
    /// The constraints, or what is wrong with them.
    pub(in crate::verify) fn of(extension: &NameConstraints) -> Result<Self, &'static str> {
        let permitted = extension.permitted_subtrees.as_deref().unwrap_or_default();
        let excluded = extension.excluded_subtrees.as_deref().unwrap_or_default();
        if permitted.is_empty() && excluded.is_empty() {
            return Err("its name constraints are empty");
        }
        let mut has_other_forms = false;
        let permitted = Subtrees::of(permitted, &mut has_other_forms)?;
        let excluded = Subtrees::of(excluded, &mut has_other_forms)?;
        Ok(Self { permitted, excluded, has_other_forms })
    }

    /// Whether every name may be there. Names that cannot be compared may not.
    pub(in crate::verify) fn allow(&self, names: &Names) -> bool {
        let (permitted, excluded) = (&self.permitted, &self.excluded);
        names
            .dns
            .iter()
            .all(|name| is_domain(name, false) && domain_is_allowed(name, &permitted.dns, &excluded.dns))
            && names.uris.iter().map(|uri| uri_host(uri).unwrap_or_default()).all(|host| {
                !host.is_empty()
                    && host.parse::<IpAddr>().is_err()
                    && domain_is_allowed(host, &permitted.uris, &excluded.uris)
            })
            && names.emails.iter().all(|email| mailbox(email).is_some_and(|parts| self.allow_mailbox(parts)))
            && names.addresses.iter().all(|address| self.allow_address(*address))
    }

    fn allow_mailbox(&self, (local, domain): (&str, &str)) -> bool {
        let is_named = |subtrees: &Subtrees| {
            let mut mailboxes = subtrees.mailboxes.iter();
            mailboxes.any(|(exact, host)| exact == local && host.eq_ignore_ascii_case(domain))
        };
        let (permitted, excluded) = (&self.permitted, &self.excluded);
        let is_permitted = permitted.mailboxes.is_empty() && permitted.email_domains.is_empty()
            || is_named(permitted)
            || permitted.email_domains.iter().any(|subtree| is_below(domain, subtree));
        is_permitted && !is_named(excluded) && domain_is_allowed(domain, &[], &excluded.email_domains)
    }

    fn allow_address(&self, address: IpAddr) -> bool {
        let (permitted, excluded) = (&self.permitted.networks, &self.excluded.networks);
        // Readers differ on whether this is an address of version 4 or 6.
        if matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some()) {
            return permitted.is_empty() && excluded.is_empty();
        }
        (permitted.is_empty() || permitted.iter().any(|network| network.contains(address)))
            && !excluded.iter().any(|network| network.contains(address))
    }
}

/// Whether a DNS name, or the host of a URI or address, is in a permitted subtree, if there are any, and in no
/// excluded one. A wildcard is also excluded if it could stand for an excluded name.
fn domain_is_allowed(name: &str, permitted: &[String], excluded: &[String]) -> bool {
    // As in Go's crypto/x509, whatever follows the star in the first label.
    let parent = name.strip_prefix('*').and_then(|rest| rest.find('.').and_then(|dot| rest.get(dot..)));
    let could_be = |subtree: &str| {
        let Some(parent) = parent else { return false };
        subtree.find('.').and_then(|dot| subtree.get(dot..)).is_some_and(|p| p.eq_ignore_ascii_case(parent))
    };
    (permitted.is_empty() || permitted.iter().any(|subtree| is_below(name, subtree)))
        && !excluded.iter().any(|subtree| is_below(name, subtree) || could_be(subtree))
}

/// Whether `name` is `subtree` or ends in it after a dot; one that begins with a dot is not in itself.
fn is_below(name: &str, subtree: &str) -> bool {
    let Some(cut) = name.len().checked_sub(subtree.len()) else { return false };
    let (Some(before), Some(end)) = (name.get(..cut), name.get(cut..)) else { return false };
    let at_boundary =
        before.is_empty() || before.ends_with('.') || subtree.is_empty() || subtree.starts_with('.');
    end.eq_ignore_ascii_case(subtree) && at_boundary
}

impl Subtrees {
    fn of(subtrees: &[GeneralSubtree], has_other_forms: &mut bool) -> Result<Self, &'static str> {
        if subtrees.len() > NAMES {
            return Err("it has more than 128 name constraints");
        }
        let malformed = "one of its name constraints cannot be read";
        let mut found = Self::default();
        for GeneralSubtree { base, minimum, maximum } in subtrees {
            // RFC 5280, 4.2.1.10: not used, so that nobody knows what another value would mean.
            if *minimum != 0 || maximum.is_some() {
                return Err(malformed);
            }
            match base {
                GeneralName::DnsName(name) if is_domain(name.as_str(), true) => {
                    found.dns.push(name.to_string())
                }
                GeneralName::Rfc822Name(name) => {
                    let name = name.as_str();
                    match mailbox(name) {
                        Some((local, host)) => found.mailboxes.push((local.to_owned(), host.to_owned())),
                        None if name.contains('@') || !is_domain(name, true) => return Err(malformed),
                        None => found.email_domains.push(name.to_owned()),
                    }
                }
                GeneralName::UniformResourceIdentifier(name)
                    if name.as_str().parse::<IpAddr>().is_err() && is_domain(name.as_str(), true) =>
                {
                    found.uris.push(name.to_string());
                }
                GeneralName::IpAddress(bytes) => {
                    found.networks.push(Network::of(bytes.as_bytes()).ok_or(malformed)?);
                }
                GeneralName::DnsName(_) | GeneralName::UniformResourceIdentifier(_) => return Err(malformed),
                GeneralName::DirectoryName(_)
                | GeneralName::EdiPartyName(_)
                | GeneralName::OtherName(_)
                | GeneralName::RegisteredId(_) => *has_other_forms = true,
            }
        }
        Ok(found)
    }
}

impl Network {
    /// Address and mask; RFC 5280, 4.2.1.10. The address must be the network's own.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
        if let (Ok(address), Ok(mask)) = (<[u8; 4]>::try_from(address), <[u8; 4]>::try_from(mask)) {
            let (address, mask) = (u32::from_be_bytes(address), u32::from_be_bytes(mask));
            let is_prefix = mask.leading_ones() + mask.trailing_zeros() == u32::BITS || mask == 0;
            return (is_prefix && address & !mask == 0).then_some(Self::V4 { address, mask });
        }
        let (address, mask) = (<[u8; 16]>::try_from(address).ok()?, <[u8; 16]>::try_from(mask).ok()?);
        let (address, mask) = (u128::from_be_bytes(address), u128::from_be_bytes(mask));
        let is_prefix = mask.leading_ones() + mask.trailing_zeros() == u128::BITS || mask == 0;
        (is_prefix && address & !mask == 0).then_some(Self::V6 { address, mask })
    }

    fn contains(self, other: IpAddr) -> bool {
        match (self, other) {
            (Self::V4 { address, mask }, IpAddr::V4(other)) => other.to_bits() & mask == address,
            (Self::V6 { address, mask }, IpAddr::V6(other)) => other.to_bits() & mask == address,
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }
}

/// Most names of a certificate, and most subtrees of a name constraint. Each name is compared with each subtree, so
/// that this is 32,768 comparisons for each pair of certificates in a chain (T-28). Certificates for signing have one or two names.
const NAMES: usize = 128;

/// Most names in a message.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use x509_cert::der::asn1::{Ia5String, OctetString};
    use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
    use x509_cert::ext::pkix::name::GeneralName;
    use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};

    use super::{Constraints, NAMES, Names};

    fn ia5(text: &str) -> Ia5String {
        Ia5String::new(text).unwrap()
    }

    /// `mail:`, `dns:`, `uri:` or `ip:` with hexadecimal digits.
    fn name(text: &str) -> GeneralName {
        match text.split_once(':').unwrap() {
            ("mail", name) => GeneralName::Rfc822Name(ia5(name)),
            ("dns", name) => GeneralName::DnsName(ia5(name)),
            ("uri", name) => GeneralName::UniformResourceIdentifier(ia5(name)),
            ("ip", digits) => {
                let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
                let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
                GeneralName::IpAddress(OctetString::new(bytes).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    fn names(texts: &[&str]) -> Result<Names, &'static str> {
        Names::of(&SubjectAltName(texts.iter().map(|text| name(text)).collect()))
    }

    // Rule C-42: what Go 1.26 says of each.
    #[test]
    fn hosts_are_compared_as_in_tls() {
        for (certified, host, wanted) in [
            ("dns:a.example", "a.example", true),
            ("dns:A.Example", "a.eXAMPLE", true),
            ("dns:a.example", "a.example.", true),
            ("dns:a.example.", "a.example", false),
            ("dns:a.example.", "a.example.", true),
            ("dns:a.example", "b.a.example", false),
            ("dns:*.example", "a.example", true),
            ("dns:*.example", "A.EXAMPLE.", true),
            ("dns:*.example", "b.a.example", false),
            ("dns:*.example", "example", false),
            ("dns:*.example", ".example", false),
            ("dns:*.example", "*.example", true),
            ("dns:*.a.example", "b.c.example", false),
            ("dns:*", "a", false),
            ("dns:*", "*", true),
            ("dns:*.", "a.", false),
            ("dns:a*.example", "ab.example", false),
            ("dns:a.*.example", "a.b.example", false),
            ("dns:a_b.example", "A_B.example", true),
            ("dns:-a.example", "-A.example", true),
            ("dns:a..example", "A..example", true),
            ("dns:*.a..example", "b.a..example", false),
            ("dns:.", ".", false),
            ("dns:", "", false),
            ("dns:a.example", "a.example:443", false),
            ("dns:a.example", "[a.example]", false),
            ("dns:10.0.0.1", "10.0.0.1", false),
            ("ip:0a000001", "10.0.0.1", true),
            ("ip:0a000001", "[10.0.0.1]", true),
            ("ip:0a000001", "::ffff:10.0.0.1", true),
            ("ip:00000000000000000000ffff0a000001", "10.0.0.1", true),
            ("ip:0a000001", "10.0.0.2", false),
            ("ip:0a000001", "010.0.0.1", false),
            ("ip:20010db8000000000000000000000001", "2001:DB8::1", true),
            ("ip:20010db8000000000000000000000001", "[2001:db8::1]", true),
            ("ip:20010db8000000000000000000000001", "[2001:db8::1", false),
            ("ip:20010db8000000000000000000000001", "2001:db8::1%eth0", false),
            ("mail:a.example", "a.example", false),
            ("uri:https://a.example", "a.example", false),
        ] {
            assert_eq!(names(&[certified]).unwrap().include_host(host), wanted, "{certified} {host}");
        }
        assert!(names(&["dns:x", "dns:a.example"]).unwrap().include_host("a.example"));
    }

    // Rules C-35, C-42.
    #[test]
    fn addresses_are_compared_byte_for_byte() {
        let names = names(&["dns:c@b.example", "uri:mailto:d@b.example", "mail:A@b.example"]).unwrap();
        for (email, wanted) in [
            ("A@b.example", true),
            ("a@b.example", false),
            ("A@B.example", false),
            ("b.example", false),
            ("c@b.example", false),
            ("d@b.example", false),
            ("", false),
        ] {
            assert_eq!(names.include_email(email), wanted, "{email}");
        }
    }

    // Rule C-33: a certificate with a name that cannot be read is not read.
    #[test]
    fn names_are_readable() {
        for (name, wanted) in [
            ("uri:https://github.com/o/r/.github/workflows/x.yml@refs/heads/main", true),
            ("uri:https://a.example:443/x?y#z", true),
            ("uri:https://a.example:/", true),
            ("uri:file:///x", true),
            ("uri:urn:a:b", true),
            ("uri:HTTPS://A_B.example/%7e", true),
            ("uri:a.example/x", false),
            ("uri:", false),
            ("uri:1a:b", false),
            ("uri:https://a.example:x/", false),
            ("uri:https://a.example:1:2/", false),
            ("uri:https://u@a.example/", false),
            ("uri:https://[::1]/", false),
            ("uri:https://a%2eexample/", false),
            ("uri:https://a..example/", false),
            ("uri:https://a.example./", false),
            ("uri:https://a.example/%", false),
            ("uri:https://a.example/%4", false),
            ("uri:https://a.example/%zz", false),
            ("uri:https://a.example/ ", false),
            ("uri:https://a.example/\n", false),
            ("uri:https://a.example/<", false),
            ("ip:0a000001", true),
            ("ip:0a0000", false),
            ("ip:", false),
            ("ip:0a0000010a000001", false),
            ("dns:any thing", true),
            ("mail:any thing", true),
        ] {
            assert_eq!(names(&[name]).is_ok(), wanted, "{name}");
        }
        assert!(names(&["dns:a"].repeat(NAMES)).is_ok());
        assert!(names(&["dns:a"].repeat(NAMES + 1)).is_err());
    }

    fn constraints(permitted: &[&str], excluded: &[&str]) -> Result<Constraints, &'static str> {
        let subtrees = |texts: &[&str]| {
            let subtree = |text: &&str| GeneralSubtree { base: name(text), minimum: 0, maximum: None };
            Some(texts.iter().map(subtree).collect())
        };
        let (permitted_subtrees, excluded_subtrees) = (subtrees(permitted), subtrees(excluded));
        Constraints::of(&NameConstraints { permitted_subtrees, excluded_subtrees })
    }

    // Rule C-33: RFC 5280, 4.2.1.10, as Go 1.26 understands it.
    #[test]
    fn names_are_in_permitted_subtrees_and_in_no_excluded_one() {
        let rows: [(&[&str], &[&str], &str, bool); 65] = [
            (&["dns:example"], &[], "dns:example", true),
            (&["dns:example"], &[], "dns:EXAMPLE", true),
            (&["dns:example"], &[], "dns:a.b.example", true),
            (&["dns:example"], &[], "dns:aexample", false),
            (&["dns:example"], &[], "dns:example.org", false),
            (&["dns:example"], &[], "dns:*.example", true),
            (&["dns:.example"], &[], "dns:a.example", true),
            (&["dns:.example"], &[], "dns:example", false),
            (&["dns:"], &[], "dns:anything", true),
            (&["dns:org", "dns:example"], &[], "dns:a.example", true),
            (&["dns:a.example"], &[], "dns:*.example", false),
            (&["dns:example"], &[], "dns:", false),
            (&["dns:example"], &[], "dns:a..example", false),
            (&["dns:example"], &[], "dns:a.example.", false),
            (&["dns:example"], &[], "dns: .example", false),
            (&["dns:example"], &[], "mail:a@b.org", true),
            (&["dns:example"], &[], "mail:no address", false),
            (&[], &["dns:example"], "dns:example", false),
            (&[], &["dns:example"], "dns:a.EXAMPLE", false),
            (&[], &["dns:example"], "dns:a.example.org", true),
            (&[], &["dns:a.example"], "dns:example", true),
            (&[], &["dns:a.example"], "dns:*.example", false),
            (&[], &["dns:b.a.example"], "dns:*.example", true),
            (&[], &["dns:b.example"], "dns:*c.example", false),
            (&[], &["mail:b.example"], "mail:a@*c.example", false),
            (&[], &["dns:b.example"], "dns:*c.a.example", true),
            (&[], &["dns:"], "dns:example", false),
            (&["dns:example"], &["dns:a.example"], "dns:b.a.example", false),
            (&["dns:example"], &["dns:a.example"], "dns:b.example", true),
            (&["mail:a@b.example"], &[], "mail:a@B.EXAMPLE", true),
            (&["mail:a@b.example"], &[], "mail:A@b.example", false),
            (&["mail:a@b.example"], &[], "mail:c@b.example", false),
            (&["mail:b.example"], &[], "mail:c@B.example", true),
            (&["mail:b.example"], &[], "mail:c@a.b.example", true),
            (&["mail:.b.example"], &[], "mail:c@b.example", false),
            (&["mail:.b.example"], &[], "mail:c@a.b.example", true),
            (&["mail:"], &[], "mail:c@d", true),
            (&["mail:b.example"], &[], "mail:\"c\"@b.example", false),
            (&["mail:b.example"], &[], "mail:c@", false),
            (&["mail:b.example"], &[], "mail:@b.example", false),
            (&["mail:b.example"], &[], "mail:.c@b.example", false),
            (&["mail:b.example"], &[], "mail:c..d@b.example", false),
            (&[], &["mail:a@b.example"], "mail:a@b.example", false),
            (&[], &["mail:a@b.example"], "mail:c@b.example", true),
            (&[], &["mail:b.example"], "mail:c@a.b.example", false),
            (&["mail:b.example"], &["mail:a@b.example"], "mail:a@b.example", false),
            (&["uri:b.example"], &[], "uri:https://B.example:80/x", true),
            (&["uri:b.example"], &[], "uri:https://a.b.example", true),
            (&["uri:b.example"], &[], "uri:https://c.example", false),
            (&[], &["uri:b.example"], "uri:https://a.b.example", false),
            (&[], &["uri:b.example"], "uri:https://c.example", true),
            (&["uri:"], &[], "uri:urn:a:b", false),
            (&["dns:example"], &[], "uri:https://10.0.0.1/", false),
            (&["dns:example"], &[], "uri:https://b.org/", true),
            (&["ip:0a000000ff000000"], &[], "ip:0a010203", true),
            (&["ip:0a000000ff000000"], &[], "ip:0b010203", false),
            (&["ip:0a000000ff000000"], &[], "ip:20010db8000000000000000000000001", false),
            (&["ip:0000000000000000"], &[], "ip:0b010203", true),
            (&[], &["ip:0a000000ff000000"], "ip:0a010203", false),
            (&[], &["ip:0a000000ff000000"], "ip:0b010203", true),
            (&["ip:0a000000ff000000"], &[], "ip:00000000000000000000ffff0a010203", false),
            (&[], &["ip:0a000000ff000000"], "ip:00000000000000000000ffff0b010203", false),
            (&["dns:example"], &[], "ip:00000000000000000000ffff0b010203", true),
            (
                &["ip:20010db8000000000000000000000000ffffffff000000000000000000000000"],
                &[],
                "ip:20010db8000000000000000000000001",
                true,
            ),
            (
                &["ip:20010db8000000000000000000000000ffffffff000000000000000000000000"],
                &[],
                "ip:20010db9000000000000000000000001",
                false,
            ),
        ];
        for (permitted, excluded, name, wanted) in rows {
            let allowed = constraints(permitted, excluded).unwrap().allow(&names(&[name]).unwrap());
            assert_eq!(allowed, wanted, "{permitted:?} {excluded:?} {name}");
        }
        let two = names(&["dns:a.example", "dns:a.org"]).unwrap();
        assert!(!constraints(&["dns:example"], &[]).unwrap().allow(&two), "every name counts");
    }

    // Rule C-33.
    #[test]
    fn constraints_are_readable() {
        for (constraint, wanted) in [
            ("dns:a.example.", false),
            ("dns:a..example", false),
            ("dns:..example", false),
            ("dns:a b", false),
            ("mail:a@", false),
            ("mail:@b", false),
            ("mail:a b", false),
            ("uri:10.0.0.1", false),
            ("uri:::1", false),
            ("uri:a.example", true),
            ("ip:0a000000ff000000", true),
            ("ip:0a000001ff000000", false),
            ("ip:0a000000ff00ff00", false),
            ("ip:0a000000fe000000", true),
            ("ip:0a000000", false),
            ("ip:0a00000000000000000000000000000000000000000000000000000000000000", false),
        ] {
            assert_eq!(constraints(&[constraint], &[]).is_ok(), wanted, "{constraint}");
        }
        assert!(constraints(&[], &[]).is_err());
        let far = GeneralSubtree { base: name("dns:example"), minimum: 1, maximum: None };
        let near = GeneralSubtree { base: name("dns:example"), minimum: 0, maximum: Some(1) };
        for subtree in [far, near] {
            let extension =
                NameConstraints { permitted_subtrees: Some(vec![subtree]), excluded_subtrees: None };
            assert!(Constraints::of(&extension).is_err());
        }
        let many = ["dns:a"].repeat(NAMES + 1);
        assert!(constraints(&many, &[]).is_err());
    }
}
