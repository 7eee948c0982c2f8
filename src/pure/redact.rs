//! Addresses on the web, as they may be told.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use url::Url;

/// An address as it may be told: who one is, a password and a query, which may hold a token, are not
/// repeated.
pub fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    if url.password().is_some() || !url.username().is_empty() {
        // These fail for a URL that cannot have them.
        url.set_username("***").ok();
        url.set_password(None).ok();
    }
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_one_is_and_what_is_asked_is_not_told() {
        for (url, told) in [
            ("https://me:hush@x.example/linux", "https://***@x.example/linux"),
            ("https://hush@x.example/", "https://***@x.example/"),
            ("http://x.example/linux?token=hush", "http://x.example/linux?***"),
            ("http://x.example:8080/linux", "http://x.example:8080/linux"),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!(shown(&url).as_str(), told);
        }
    }
}
