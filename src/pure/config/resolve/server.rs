//! From `server` to the daemon's own settings.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::Path;

use super::{DEFAULT_NBPS, state_folder, within};
use crate::pure::catalog::host::Host;
use crate::pure::catalog::server::{Dhcp, Interfaces, Server, Tftp};
use crate::pure::config::fields::Located;
use crate::pure::config::problem::Problems;
use crate::pure::config::schema::{self, File};
use crate::pure::config::surroundings::Surroundings;
use crate::pure::config::yaml::Place;

/// What the daemon itself needs, with its defaults.
pub(crate) fn server(file: &File, found: &Surroundings, problems: &mut Problems) -> Server {
    let written = &file.server;
    let interfaces = match &written.interfaces {
        Some(names) if !names.is_empty() => {
            Interfaces::Named(names.iter().map(|at| at.value.clone()).collect())
        }
        _ => Interfaces::OfDefaultRoute,
    };
    // What else lies in the host's own folders is none of the operator's making.
    let is_its_own = |path: &Path| {
        let lies_in = |folder: &&str| path.starts_with(folder) && path != Path::new(folder);
        DEFAULT_NBPS.iter().any(lies_in)
    };
    for (path, reason) in found.bad_nbps.iter().filter(|(path, _)| !is_its_own(path)) {
        let named = |at: &&Located<String>| path.starts_with(within(&found.base, &at.value));
        let at = written.nbps.iter().flatten().find(named);
        let key = at.map_or("server.nbps", |at| at.key.as_str());
        let place = at.map(|at| at.place).unwrap_or_default();
        problems.warning(key, place, format!("{}: {reason}", path.display()));
    }
    if found.nbps.iter().next().is_none() {
        let at = written.nbps.as_ref().and_then(|folders| folders.first());
        let place = at.map(|at| at.place).unwrap_or_default();
        problems.warning("server.nbps", place, "no NBP was found in any folder, so no firmware can be answered; `reveille nbps fetch` gets iPXE's newest; or install Debian's package ipxe, or name a folder with undionly.kpxe and snponly.efi");
    }
    // Those of that name among the built-in ones may be quite others.
    if let Some(reason) = &found.no_templates {
        let place = written.boot_scripts.as_ref().map(|at| at.place).unwrap_or_default();
        let folder = found.boot_scripts.display();
        let message = format!("{folder}: {reason}; the built-in templates serve");
        problems.fault("server.boot_scripts", place, message);
    }
    let tftp = &written.tftp;
    if tftp.off {
        let message = "TFTP is off: only UEFI HTTP Boot and cards whose ROM is an iPXE can boot";
        problems.warning("server.tftp", Place::default(), message);
    }
    let port = |said: &Option<Located<u16>>, usual| said.as_ref().map_or(usual, |at| at.value);
    let dhcp = (!written.dhcp.off).then(|| Dhcp {
        port: port(&written.dhcp.port, 67),
        boot_server_port: port(&written.dhcp.boot_server_port, 4011),
    });
    let tftp = (!tftp.off).then(|| Tftp {
        port: port(&tftp.port, 69),
        max_transfers: tftp.max_transfers.unwrap_or(2000) as usize,
        max_per_address: tftp.max_per_address.unwrap_or(8) as usize,
        max_unanswered: tftp.max_unanswered.unwrap_or(5),
        max_errors: tftp.max_errors.unwrap_or(100),
        subnets: tftp.subnets.clone(),
    });
    ports(written, (dhcp, tftp.as_ref()), problems);
    Server {
        interfaces,
        advertise: written.advertise.as_ref().map(|at| at.value),
        dhcp,
        tftp,
        http_port: port(&written.http_port, 8080),
        http_hosts: hosts(&written.http_hosts, problems),
        release: written.release.unwrap_or_default(),
        on_lost_state: written.on_lost_state.unwrap_or_default(),
        state: state_folder(file, &found.base, &found.state),
    }
}

/// The names by which machines may address this host.
fn hosts(written: &[Located<String>], problems: &mut Problems) -> Vec<Host> {
    let read = |host: &Located<String>| {
        host.value.parse().inspect_err(|reason| {
            let message =
                format!("`{}`: {reason}; write the name alone, as `boot.lan`", host.value);
            problems.error("server.http.hosts", host.place, message);
        })
    };
    written.iter().map(read).filter_map(Result::ok).collect()
}

/// Looks whether each UDP port is another one.
fn ports(
    written: &schema::Server,
    (dhcp, tftp): (Option<Dhcp>, Option<&Tftp>),
    problems: &mut Problems,
) {
    let dhcp = dhcp.iter().flat_map(|dhcp| {
        let boot_server = &written.dhcp.boot_server_port;
        [
            ("server.dhcp.port", dhcp.port, &written.dhcp.port),
            ("server.dhcp.boot_server_port", dhcp.boot_server_port, boot_server),
        ]
    });
    let tftp = tftp.iter().map(|tftp| ("server.tftp.port", tftp.port, &written.tftp.port));
    let all: Vec<_> = dhcp.chain(tftp).collect();
    for (at, (key, port, said)) in all.iter().enumerate() {
        let Some((other, _, other_said)) = all[..at].iter().find(|other| other.1 == *port) else {
            continue;
        };
        // One of them is not the default, and is said.
        let (key, other, said) = match said {
            Some(said) => (key, other, said),
            None => match other_said {
                Some(said) => (other, key, said),
                None => continue,
            },
        };
        problems.error(key, said.place, format!("UDP port {port} is `{other}` already"));
    }
}
