//! HTTP, for booting machines: each one's script, NBPs for UEFI HTTP Boot, kernels and initrds.
//!
//! What iPXE and UEFI want of a server: a Content-Length always, HEAD as GET without a body, no
//! compression, no redirect for an `.efi`, `application/efi` as its type, ranges and a strong ETag to
//! resume with.

pub mod boot;
mod tracked;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;
use crate::interfaces::Served;
use crate::registry::Registry;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Server {
    /// The running config.
    pub config: watch::Receiver<Arc<Config>>,
    /// The served interfaces.
    pub served: watch::Receiver<Arc<Served>>,
    /// What is remembered.
    pub registry: Registry,
}

/// A connection: who, and to which address of ours.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    from: Ipv4Addr,
    local: Ipv4Addr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Arrival {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let v4 = |address: SocketAddr| match address {
            SocketAddr::V4(address) => *address.ip(),
            SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let local = stream.io().local_addr().map_or(Ipv4Addr::UNSPECIFIED, v4);
        Self { from: v4(*stream.remote_addr()), local }
    }
}

impl Server {
    /// Serves on a bound listener, for ever.
    ///
    /// # Errors
    /// None that axum does not handle itself: a failed accept is tried again.
    pub async fn run(self, listener: TcpListener) -> std::io::Result<()> {
        let app = Router::new()
            .route("/boot/{file}", get(boot::script))
            .route("/nbp/{*name}", get(boot::nbp))
            .route("/images/{image}/{part}", get(boot::image))
            .fallback(|| async { (StatusCode::NOT_FOUND, "nothing is served under this path\n") })
            .layer(middleware::from_fn_with_state(self.clone(), only_where_machines_boot))
            .with_state(self);
        let service = app.into_make_service_with_connect_info::<Arrival>();
        axum::serve(listener, service).await
    }

    /// The address of ours that a client on this connection is told.
    fn advertised(&self, arrival: Arrival) -> Option<Ipv4Addr> {
        let served = self.served.borrow();
        let interface = served.with_address(arrival.local);
        let loopback = arrival.local.is_loopback().then_some(arrival.local);
        interface.map(|interface| interface.advertised).or(loopback)
    }
}

/// A script may hold a join token: who comes in on another interface gets nothing.
async fn only_where_machines_boot(
    State(server): State<Server>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    request: Request,
    next: Next,
) -> Response {
    if server.advertised(arrival).is_some() {
        return next.run(request).await;
    }
    let text = "machines do not boot on this address; see `server.interfaces`\n";
    (StatusCode::FORBIDDEN, text).into_response()
}
