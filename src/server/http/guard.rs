//! Which requests booting machines send, and which only a browser can be made to send.
//!
//! A web page can lead the browser of somebody on the LAN to this server: by a link or a `fetch` from a
//! foreign page, or by DNS rebinding, where the page's own name resolves to this host. Such a request
//! has a foreign Host, or one of the header fields that browsers add; firmware, iPXE and installers send
//! neither.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Display};
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};

use crate::pure::catalog::host::Host;
use crate::pure::printable;

/// The longest part of a client's text that a reason repeats, in characters.
const LONGEST_SHOWN: usize = 100;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// More than one Host header, or one that is no `host[:port]`.
    Malformed,
    /// The host that the request names is not this one.
    Foreign(String),
    /// A header field that only browsers send.
    Browser(HeaderName),
}

impl Refusal {
    /// The status of the response (RFC 9112 section 3.2, RFC 9110 section 15.5.20).
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Foreign(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Browser(_) => StatusCode::FORBIDDEN,
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("its Host header is invalid"),
            Self::Foreign(host) => write!(
                f,
                "its host `{}` is neither an address of this host nor a name in `server.http.hosts`; if machines use this name, add it there",
                printable::cut(host, LONGEST_SHOWN)
            ),
            Self::Browser(name) => {
                write!(
                    f,
                    "its header `{name}` comes from a browser, and no booting machine sends it"
                )
            }
        }
    }
}

/// Whether a booting machine can have sent this request.
///
/// `hosts` are the names in the config, `is_local` returns whether an address is one of this host's. A
/// request without a host is allowed: HTTP/1.0 has none, and browsers always send one. The port is not
/// compared, because firmware leaves it out, and an attacker's page has no use for another.
pub(super) fn check(
    target: &Uri,
    headers: &HeaderMap,
    hosts: &[Host],
    is_local: impl Fn(IpAddr) -> bool,
) -> Result<(), Refusal> {
    if let Some(authority) = authority(target, headers)? {
        let host = authority.parse::<Host>().map_err(|_| Refusal::Malformed)?;
        let is_named = || hosts.contains(&host);
        let is_own = match &host {
            Host::Address(address) => is_local(*address) || is_named(),
            Host::Name(_) => is_named(),
        };
        if !is_own {
            return Err(Refusal::Foreign(host.to_string()));
        }
    }
    let is_browsers = |name: &&HeaderName| {
        **name == header::ORIGIN
            || **name == header::REFERER
            || name.as_str().starts_with("sec-fetch-")
    };
    headers.keys().find(is_browsers).map_or(Ok(()), |name| Err(Refusal::Browser(name.clone())))
}

/// The authority that a request is for. That of an absolute-form target replaces the Host header
/// (RFC 9112 section 3.2.2).
fn authority<'a>(target: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refusal> {
    let mut lines = headers.get_all(header::HOST).iter();
    let (line, other) = (lines.next(), lines.next());
    if other.is_some() {
        return Err(Refusal::Malformed);
    }
    if let Some(authority) = target.authority() {
        return Ok(Some(authority.as_str()));
    }
    let host = line.map(|line| line.to_str()).transpose().map_err(|_| Refusal::Malformed)?;
    Ok(host.filter(|host| !host.is_empty()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const LOCAL: [&str; 3] = ["10.77.0.2", "127.0.0.1", "fd77::2"];

    fn checked(target: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let hosts = ["Boot.lan.", "pxe:8080", "192.0.2.7"].map(|host| host.parse().unwrap());
        let is_local = |address: IpAddr| LOCAL.contains(&address.to_string().as_str());
        check(&target.parse().unwrap(), &map, &hosts, is_local)
    }

    fn host(value: &str) -> Result<(), Refusal> {
        checked("/boot/x.ipxe", &[("host", value)])
    }

    #[test]
    fn allows_no_host_any_local_address_and_the_names_of_the_config() {
        assert_eq!(checked("/", &[]), Ok(()), "HTTP/1.0");
        for value in [
            "",
            "10.77.0.2",
            "10.77.0.2:8080",
            "10.77.0.2:",
            "10.77.0.2:80",
            "10.77.0.2.:8080",
            "127.0.0.1:8080",
            "[fd77::2]",
            "[FD77:0::2]:8080",
            "[::ffff:10.77.0.2]:8080",
            "boot.lan",
            "BOOT.LAN:8080",
            "boot.lan.:8080",
            "pxe",
            "pxe:80",
            "192.0.2.7:8080",
        ] {
            assert_eq!(host(value), Ok(()), "{value}");
        }
    }

    #[test]
    fn refuses_foreign_hosts() {
        for value in [
            "evil.example",
            "evil.example:8080",
            "10.77.0.3:8080",
            "10.77.0.2.evil.example",
            "boot.lan.evil.example",
            "notboot.lan",
            "localhost:8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "[fd77::3]:8080",
            // Browsers normalize these to an address before they send them.
            "10.77.2",
            "0x0a.77.0.2",
            "172818434",
            "010.77.0.2",
            "boot.lan..",
        ] {
            let refusal = host(value).unwrap_err();
            assert_eq!(refusal.status(), 421, "{value}: {refusal}");
        }
        let why = host(&"a".repeat(5000)).unwrap_err().to_string();
        assert!(why.len() < 300, "{why}");
    }

    #[test]
    fn refuses_what_is_no_host() {
        for value in [
            "evil@10.77.0.2",
            "10.77.0.2@evil.example",
            "10.77.0.2, evil.example",
            "10.77.0.2 evil.example",
            "10.77.0.2:x",
            "10.77.0.2:8080:8080",
            "10.77.0.2:808080",
            "[fd77::2",
            "[fd77::2]8080",
            "[10.77.0.2]",
            "[fe80::1%25eth0]",
            "fd77::2",
            ":8080",
            ".",
            "b%6fot.lan",
            "böot.lan",
            "http://10.77.0.2/",
        ] {
            assert_eq!(host(value), Err(Refusal::Malformed), "{value}");
        }
        let two = [("host", "10.77.0.2"), ("host", "10.77.0.2")];
        assert_eq!(checked("/", &two), Err(Refusal::Malformed));
        assert_eq!(checked("http://10.77.0.2/", &two), Err(Refusal::Malformed));
        assert_eq!(Refusal::Malformed.status(), 400);
    }

    #[test]
    fn the_authority_of_an_absolute_target_replaces_the_host_header() {
        let (own, evil) = ([("host", "10.77.0.2")], [("host", "evil.example")]);
        assert_eq!(checked("http://10.77.0.2:8080/boot/x.ipxe", &own), Ok(()));
        assert_eq!(checked("http://BOOT.lan/boot/x.ipxe", &evil), Ok(()));
        for target in ["http://evil.example/boot/x.ipxe", "evil.example:8080"] {
            assert_eq!(checked(target, &own).unwrap_err().status(), 421, "{target}");
        }
        for target in ["http://evil@10.77.0.2/", "http://10.77.0.2@evil.example/"] {
            assert_eq!(checked(target, &own), Err(Refusal::Malformed), "{target}");
        }
        // That is a path.
        assert_eq!(checked("//evil.example/boot/x.ipxe", &own), Ok(()));
    }

    #[test]
    fn refuses_what_only_browsers_send() {
        for name in ["Origin", "Referer", "Sec-Fetch-Site", "sec-fetch-mode", "SEC-FETCH-DEST"] {
            for value in ["null", "http://10.77.0.2:8080/", "none", ""] {
                let refusal = checked("/", &[("host", "10.77.0.2"), (name, value)]).unwrap_err();
                assert_eq!(refusal.status(), 403, "{name}: {value}");
                assert_eq!(checked("/", &[(name, value)]), Err(refusal), "also without a host");
            }
        }
        // curl, iPXE, Talos and the installers of Debian send some of these.
        let usual = [("host", "10.77.0.2"), ("user-agent", "iPXE/2.0"), ("accept", "*/*")];
        assert_eq!(checked("/", &[&usual[..], &[("sec-ch-ua", "x")]].concat()), Ok(()));
        let both = [("host", "evil.example"), ("origin", "http://evil.example")];
        assert_eq!(checked("/", &both).unwrap_err().status(), 421);
    }
}
