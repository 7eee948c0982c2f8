//! The daemon: everything is bound before anything runs, and it ends with the first that ends.

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing::info;

use crate::config::load::Source;
use crate::config::reload::Reloader;
use crate::dhcp::{self, proxy::Port};
use crate::http;
use crate::interfaces::Watcher;
use crate::ports::{Protocol, explain};
use crate::registry::Registry;
use crate::tftp;
use crate::udp::Udp;

/// Serves until a signal comes.
///
/// # Errors
/// The config has errors, or a port cannot be had.
pub async fn serve(source: Source) -> Result<()> {
    let config = source.load().with_context(|| format!("config: {source} is not taken up"))?;
    let server = config.server.clone();
    info!("config: {source}");

    let dhcp_socket = udp(server.dhcp.port, "server.dhcp.port")?;
    let boot_server_socket = udp(server.dhcp.boot_server_port, "server.dhcp.boot_server_port")?;
    let tftp_socket = match &server.tftp {
        Some(limits) => Some((udp(limits.port, "server.tftp.port")?, *limits)),
        None => None,
    };
    let http_port = server.http_port;
    let http_listener = TcpListener::bind(("0.0.0.0", http_port))
        .await
        .map_err(|error| anyhow!(explain(Protocol::Tcp, http_port, "server.http.port", &error)))?;

    let reloader = Reloader::new(source, config);
    let interfaces = Watcher::new(server);
    let registry = Registry::default();
    let views = || (reloader.subscribe(), interfaces.subscribe());
    let mut tasks = JoinSet::new();
    for (port, socket) in [(Port::Dhcp, dhcp_socket), (Port::BootServer, boot_server_socket)] {
        tasks.spawn(dhcp::server::Server::new(port, socket, views(), registry.clone()).run());
    }
    if let Some((socket, limits)) = tftp_socket {
        tasks.spawn(tftp::server::Server::new(socket, limits, views(), registry.clone()).run());
    }
    let (config, served) = views();
    let http = http::Server { config, served, registry };
    tasks.spawn(async move {
        // It never returns: a failed accept is tried again.
        http.run(http_listener).await.ok();
    });
    tasks.spawn(interfaces.run());

    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    info!("ready");
    loop {
        tokio::select! {
            _ = hangup.recv() => reloader.reload(),
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            Some(ended) = tasks.join_next() => {
                return Err(anyhow!("a part of the daemon has ended by itself: {ended:?}"));
            }
        }
    }
    info!("stopped");
    Ok(())
}

fn udp(port: u16, key: &str) -> Result<Udp> {
    Udp::bind(port).map_err(|error| anyhow!(explain(Protocol::Udp, port, key, &error)))
}
