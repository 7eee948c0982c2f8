//! The daemon: everything is bound before anything runs, and it ends with the first that ends.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::{self, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info, warn};

use crate::admin::control::{Claim, Control, ControlError};
use crate::admin::operations::lost::{LostState, Urgency};
use crate::admin::operations::{Listener, Operations};
use crate::config::loader::Source;
use crate::config::reloader::Reloader;
use crate::config::watcher;
use crate::pure::catalog::server::Server;
use crate::pure::config::snapshot::Config;
use crate::pure::dhcp::arrival::Port;
use crate::server::dhcp::{lan, server};
use crate::server::http;
use crate::server::http::body::Pieces;
use crate::state::images::Images;
use crate::state::images::image_fetcher::Keeper;
use crate::state::journal::Journal;
use crate::state::registry::Registry;
use crate::state::sqlite;
use crate::sys::interfaces::Watcher;
use crate::sys::neighbours::Neighbours;
use crate::sys::port_owner::{Protocol, explain, holder};
use crate::sys::udp::Udp;

/// Serves until a signal comes.
///
/// # Errors
/// The config has errors, or a port cannot be had.
pub async fn serve(source: Source) -> Result<()> {
    let started = Instant::now();
    let (loaded, followed) = source.load_followed();
    let config = loaded.with_context(|| format!("config: {source} is not taken up"))?;
    let server = config.server.clone();
    info!("config: {source}");
    let places = source.places();
    if let Some(conflict) = places.conflict {
        bail!("state folder: {conflict}");
    }
    for warning in places.warnings {
        warn!("state folder: {warning}");
    }
    let open_files = raise_open_files();
    let control = control(&server)?;
    let _claim = Claim::take(&server.state)?;

    // DHCP has a thread of its own: firmware waits for an answer for a moment only, whatever else is
    // fetched meanwhile.
    let dhcp_thread = own_thread("dhcp")?;
    let dhcp_sockets = match &server.dhcp {
        Some(dhcp) => {
            let _there = dhcp_thread.enter();
            vec![
                (Port::BootServer, udp(dhcp.boot_server_port)?),
                (Port::Dhcp, dhcp_socket(dhcp.port)?),
            ]
        }
        None => Vec::new(),
    };
    // TFTP too: a block a time is so little work that to wake another thread for it costs more.
    let tftp_thread = own_thread("tftp")?;
    let tftp_socket = match &server.tftp {
        Some(limits) => {
            let _there = tftp_thread.enter();
            Some((udp(limits.port)?, limits.clone()))
        }
        None => None,
    };
    let http_port = server.http_port;
    let http_listener = TcpListener::bind(("0.0.0.0", http_port)).await.map_err(|error| {
        anyhow!(explain((Protocol::Tcp, http_port), ", or set `server.http.port`", &error))
    })?;

    sqlite::close_to_others(&server.state);
    let journal = Arc::new(Journal::open(&server.state));
    let registry = Registry::open(&server.state, Arc::clone(&journal)).context(
        "registry: what is remembered of machines is there and cannot be read; mend that, or move the file away: \
         then machines whose profile wipes hold until `reveille state accept`",
    )?;
    journal.publish_problems(&config.problems);
    log_loss(&registry, &config, &source);
    let reloader = Arc::new(Reloader::new(source, (config, followed)));
    let interfaces = Watcher::new(reloader.subscribe());
    registry.follow(reloader.subscribe());
    let images = Images::new(&server.state, Arc::clone(&journal));
    let views = || (reloader.subscribe(), interfaces.subscribe());
    let neighbours = Neighbours::new(interfaces.subscribe());
    let mut tasks = JoinSet::new();
    let (lan, sightings) = lan::Lan::new(views());
    tasks.spawn(lan.run());
    for bound in dhcp_sockets {
        let machines = (registry.clone(), neighbours.clone());
        let server = server::Server::new(bound, views(), machines, sightings.clone());
        tasks.spawn(ended("dhcp", dhcp_thread.spawn(server.run())));
    }
    let mut transfers = Arc::default();
    if let Some((socket, limits)) = tftp_socket {
        let machines = (registry.clone(), neighbours.clone());
        let server = crate::server::tftp::server::Server::new(
            socket,
            limits,
            views(),
            (machines, images.clone()),
        );
        transfers = server.running();
        tasks.spawn(ended("tftp", tftp_thread.spawn(server.run())));
    }
    let (config, served) = views();
    let http = http::Server {
        config,
        served,
        neighbours: neighbours.clone(),
        registry: registry.clone(),
        images: images.clone(),
        pieces: Pieces::default(),
    };
    tasks.spawn(http.run(http_listener, most_connections(open_files)));
    let (keeper, errands) = Keeper::new(reloader.subscribe(), images.clone());
    let operations = Operations {
        reloader: Arc::clone(&reloader),
        served: interfaces.subscribe(),
        journal: Arc::clone(&journal),
        registry: registry.clone(),
        listeners: listeners(&server),
        transfers,
        images,
        errands,
        started,
    };
    tasks.spawn(keeper.run());
    tasks.spawn(registry.clone().run());
    tasks.spawn(interfaces.run());
    if let Some(control) = control {
        tasks.spawn(control.run(operations.clone()));
    }
    let follower = operations.clone();
    let reload = move || drop(follower.reload());
    watcher::follow(reloader, reload).context("cannot start a thread")?;

    let ended = until_the_end(&operations, &mut tasks).await;
    registry.close();
    journal.close();
    ended?;
    info!("stopped");
    Ok(())
}

/// Runs until a signal says that it is enough, or until the first part ends by itself.
async fn until_the_end(operations: &Operations, tasks: &mut JoinSet<()>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    info!("ready");
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                let operations = operations.clone();
                tokio::task::spawn_blocking(move || operations.reload());
            }
            _ = terminate.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
            Some(ended) = tasks.join_next() => {
                return Err(anyhow!("a part of the daemon has ended by itself: {ended:?}"));
            }
        }
    }
}

/// Logs what was lost of the registry, and what to do.
fn log_loss(registry: &Registry, config: &Config, source: &Source) {
    let Some(lost) = LostState::of(registry, config) else { return };
    let line = lost.line(&source.arguments());
    match lost.urgency() {
        Urgency::Error => error!("registry: {line}"),
        Urgency::Warning => warn!("registry: {line}"),
        Urgency::Information => info!("registry: {line}"),
    }
}

/// Without the control socket machines boot all the same.
fn control(server: &Server) -> Result<Option<Control>> {
    match Control::bind(&server.state) {
        Ok(control) => Ok(Some(control)),
        Err(error @ ControlError::Taken(_)) => Err(error.into()),
        Err(error @ ControlError::NotMade { .. }) => {
            warn!("{error}");
            Ok(None)
        }
    }
}

/// The ports, as they are bound.
fn listeners(server: &Server) -> Vec<Listener> {
    let listener = |name: &str, transport: &str, port: Option<u16>| Listener {
        name: name.to_owned(),
        transport: transport.to_owned(),
        port,
        // The daemon ends with the first that ends.
        runs: port.is_some(),
    };
    let dhcp = server.dhcp.as_ref();
    vec![
        listener("DHCP", "udp", dhcp.map(|dhcp| dhcp.port)),
        listener("PXE boot server", "udp", dhcp.map(|dhcp| dhcp.boot_server_port)),
        listener("TFTP", "udp", server.tftp.as_ref().map(|tftp| tftp.port)),
        listener("HTTP", "tcp", Some(server.http_port)),
    ]
}

/// A runtime on a thread of its own, which ends with the process.
fn own_thread(name: &str) -> Result<Handle> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name(name.to_owned()).spawn(run).context("cannot start a thread")?;
    Ok(handle)
}

/// Waits for the end of what runs on a thread of its own.
async fn ended(name: &'static str, running: JoinHandle<()>) {
    running.await.unwrap_or_else(|error| error!("{name}: {error}"));
}

fn udp(port: u16) -> Result<Udp> {
    // Firmware asks these ports only: another would help nobody.
    Udp::bind(port).map_err(|error| anyhow!(explain((Protocol::Udp, port), "", &error)))
}

/// The DHCP server port, beside a DHCP server on this host where there is one: what is sent to this
/// host's own address, as a lease that is renewed, stays that server's.
fn dhcp_socket(port: u16) -> Result<Udp> {
    let other = holder(Protocol::Udp, port);
    let address = if other.is_some() { Ipv4Addr::BROADCAST } else { Ipv4Addr::UNSPECIFIED };
    let socket = Udp::bind_beside_others(address, port).map_err(|error| {
        let instead = ", or let it share the port (dnsmasq: `bind-dynamic` in its config), or set `server.dhcp: off` and let it name this host and the NBP";
        anyhow!(explain((Protocol::Udp, port), instead, &error))
    })?;
    if let Some(other) = other {
        info!(
            "UDP port {port} is shared with {other}: it keeps what is sent to this host's own address, such as the requests of a DHCP relay, until reveille is started again without it"
        );
    }
    Ok(socket)
}

/// Each transfer and each connection is an open file, and the usual 1024 are few for a rack. Returns
/// how many there may be.
fn raise_open_files() -> u64 {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limits.and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    raised.unwrap_or_else(|error| {
        warn!("cannot raise the number of open files: {error}");
        limits.map_or(1024, |(soft, _)| soft)
    })
}

/// HTTP connections at once: a rack opens one or two a machine. Each has a socket and a file, and half
/// of the files are left to TFTP and the rest.
fn most_connections(open_files: u64) -> usize {
    usize::try_from(open_files / 4).unwrap_or(usize::MAX).min(4096)
}
