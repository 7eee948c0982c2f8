//! To whom a response that contains a secret is given, and which secrets a profile has.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use super::entries::Profile;
use super::select::Who;
use super::settings::Release;

/// The secrets of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets<'a> {
    /// The Omni instance whose join token is on the kernel line.
    pub omni: Option<&'a str>,
    /// The answer files, by name.
    pub files: BTreeSet<&'a str>,
}

/// To whom a response that contains a secret is given: the machine's word, else its group's, the profile's or
/// the server's.
pub fn release(profile: &Profile, who: &Who, server_default: Release) -> Release {
    who.settings(Some(profile)).find_map(|said| said.release).unwrap_or(server_default)
}

/// The secrets that `who` receives with this profile; none if it has none.
pub fn secrets<'a>(profile: &'a Profile, who: &'a Who) -> Option<Secrets<'a>> {
    let omni = profile.omni.as_ref().map(|omni| omni.name.as_str());
    let files = who.settings(Some(profile)).flat_map(|said| said.files.keys());
    let files: BTreeSet<&str> = files.map(String::as_str).collect();
    (omni.is_some() || !files.is_empty()).then_some(Secrets { omni, files })
}

/// Whether `release: armed` gives `who` the script of this profile only while its boot is ordered or due.
pub fn needs_order(profile: &Profile, who: &Who, server_default: Release) -> bool {
    release(profile, who, server_default) == Release::Armed && secrets(profile, who).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pure::catalog::entries::{Machine, Network};
    use crate::pure::catalog::settings::Settings;

    fn said(release: Option<Release>, file: Option<&str>) -> Settings {
        let files = file.map(|name| (name.to_owned(), "/srv/x".into())).into_iter().collect();
        Settings { release, files, ..Settings::default() }
    }

    fn profile(settings: Settings) -> Profile {
        Profile {
            name: "p".into(),
            script: "talos".into(),
            has_own_script: false,
            image: None,
            omni: None,
            settings,
        }
    }

    fn oden(settings: Settings) -> Who {
        let machine = Machine {
            name: "oden".into(),
            macs: Vec::new(),
            uuid: None,
            serial: None,
            profile: None,
            network: Network::default(),
            settings,
        };
        Who { machine: Some(Arc::new(machine)), group: None }
    }

    #[test]
    fn the_machines_release_comes_before_the_profiles_and_that_before_the_servers() {
        let (anyone, armed) = (Some(Release::Anyone), Some(Release::Armed));
        let table = [
            (None, None, Release::Seen),
            (anyone, None, Release::Anyone),
            (anyone, armed, Release::Armed),
            (None, anyone, Release::Anyone),
        ];
        for (of_profile, of_machine, expected) in table {
            let profile = profile(said(of_profile, None));
            let who = oden(said(of_machine, None));
            assert_eq!(release(&profile, &who, Release::Seen), expected);
        }
    }

    #[test]
    fn answer_files_of_the_profile_and_the_machine_are_secrets() {
        let plain = profile(said(None, None));
        assert_eq!(secrets(&plain, &Who::default()), None);
        let profile = profile(said(None, Some("a")));
        let who = oden(said(None, Some("b")));
        let files = BTreeSet::from(["a", "b"]);
        assert_eq!(secrets(&profile, &who), Some(Secrets { omni: None, files }));
    }
}
