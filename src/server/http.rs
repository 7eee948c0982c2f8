//! HTTP, for booting machines: each one's script, NBPs for UEFI HTTP Boot, kernels and initrds.
//!
//! What iPXE and UEFI want of a server: a Content-Length always, HEAD as GET without a body, no
//! compression, no redirect for an `.efi`, `application/efi` as its type, ranges and a strong ETag to
//! resume with.

mod accept;
pub mod body;
pub mod boot;
mod connections;
mod delivery;
mod guard;
mod tracked;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tower::ServiceExt;
use tracing::debug;

use self::accept::{Tallies, admit};
use self::body::Pieces;
use self::connections::{Connections, Place};
use self::delivery::Line;
use crate::pure::boot::urls::SIMULATION;
use crate::pure::config::snapshot::Config;
use crate::pure::event::boot::{Event, Step, Subject};
use crate::pure::printable;
use crate::state::images::Images;
use crate::state::registry::Registry;
use crate::sys::interfaces::{Served, is_own_address};
use crate::sys::neighbours::Neighbours;

/// How long a client may take to send the head of a request, or leave a connection idle. iPXE and UEFI
/// send it at once, and open another connection where they find one closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// How much a request's head may have. A body's next piece is read once less than this waits to be sent.
const MOST_HEADERS: usize = 16 << 10;

/// How long what was sent may stay unacknowledged, or unread by the client, before its connection
/// ends: a machine that was switched off amid its download.
const SEND_TIMEOUT: Duration = Duration::from_mins(2);

/// How often idle connections are inspected.
const CLOSE_IDLE: Duration = Duration::from_secs(1);

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Server {
    /// The running config.
    pub config: watch::Receiver<Arc<Config>>,
    /// The served interfaces.
    pub served: watch::Receiver<Arc<Served>>,
    /// Who has which address.
    pub neighbours: Neighbours,
    /// What is remembered.
    pub registry: Registry,
    /// The images that are fetched.
    pub images: Images,
    /// What is being sent of files.
    pub pieces: Pieces,
}

/// A connection: who, and how it reaches us.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The client.
    from: Ipv4Addr,
    /// The address of ours that it connected to.
    local: Ipv4Addr,
}

impl Arrival {
    fn of(stream: &TcpStream, from: Ipv4Addr) -> std::io::Result<Self> {
        SockRef::from(stream).set_tcp_user_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { from, local: v4(stream.local_addr()?) })
    }

    /// The address of ours from which the way back to the client goes out.
    fn back(self) -> Option<Ipv4Addr> {
        // Connecting a UDP socket sends nothing: it asks the kernel for the route.
        let route = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        route.connect(SocketAddrV4::new(self.from, 9)).ok()?;
        match route.local_addr().ok()? {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        }
    }
}

impl Server {
    /// Serves on a bound listener, for ever, with at most so many connections.
    pub async fn run(self, listener: TcpListener, most_connections: usize) {
        let app = Router::new()
            .route("/boot/{file}", get(boot::script))
            .route("/files/{mac}/{name}", get(boot::file_of_no_boot))
            .route("/files/{mac}/{id}/{name}", get(boot::file))
            .route("/nbp/{*name}", get(boot::nbp))
            .route("/images/{image}/{part}", get(boot::image))
            .fallback(|| async { (StatusCode::NOT_FOUND, "nothing is served under this path\n") })
            .layer(middleware::from_fn_with_state(self.clone(), only_what_machines_send))
            .layer(middleware::from_fn_with_state(self.clone(), only_where_machines_boot))
            .layer(middleware::from_fn(under_way))
            .with_state(self);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        // A client may close its own side once it has sent its request.
        http.half_close(true);
        // It holds one piece of a body, and asks for the next when that is sent.
        http.max_buf_size(MOST_HEADERS);
        accept::set_up(&listener);
        let connections = Connections::new(most_connections);
        let mut tallies = Tallies::new(most_connections);
        let mut close_idle = tokio::time::interval(CLOSE_IDLE);
        close_idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Mostly that no file descriptor is left.
                        tallies.failed(&error);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                },
                _ = close_idle.tick() => {
                    connections.close_idle();
                    continue;
                }
            };
            let from = v4(peer);
            let Some((place, closed)) = admit(&connections, from, &mut tallies).await else {
                continue;
            };
            let arrival = match Arrival::of(&stream, from) {
                Ok(arrival) => arrival,
                Err(error) => {
                    tallies.failed(&error);
                    continue;
                }
            };
            let line = Line::new(stream, place.clone());
            let (wire, watched) = (line.wire(), line.wire());
            let held = place.clone();
            let app = app.clone().map_request(move |mut request: hyper::Request<_>| {
                request.extensions_mut().insert(ConnectInfo(arrival));
                request.extensions_mut().insert(wire.clone());
                request.extensions_mut().insert(place.clone());
                request
            });
            let connection =
                http.serve_connection(TokioIo::new(line), TowerToHyperService::new(app));
            let served = async move {
                tokio::select! {
                    served = connection => if let Err(error) = served {
                        debug!("http: {from}: {error}");
                    },
                    never = watched.watch() => match never {},
                }
                watched.close(SEND_TIMEOUT).await;
            };
            tokio::spawn(async move {
                tokio::select! {
                    () = served => {}
                    _ = closed => debug!("http: {from}: closed a connection that others need"),
                }
                // The connection counts until its socket is closed.
                drop(held);
            });
        }
    }

    /// As it serves this request: what a simulation fetches is no step of the machine's.
    fn serving(self, headers: &HeaderMap) -> Self {
        if is_simulation(headers) {
            return Self { registry: self.registry.of_a_simulation(), ..self };
        }
        self
    }

    /// Records that a request was refused, whatever it asked for.
    fn refuse_request(&self, arrival: Arrival, request: &Request, reason: String) {
        let subject = Subject { address: Some(arrival.from), ..Subject::default() };
        let what = printable::name(request.uri().path());
        self.registry.record(Event { subject, step: Step::Refused { what, reason } });
    }

    /// The address of ours that a client on this connection is told, if it comes from where machines
    /// boot. A host answers on every interface for each of its addresses, so the address that was
    /// asked says nothing: the client is on a served LAN, or the way back to it goes out there.
    fn advertised(&self, arrival: Arrival) -> Option<Ipv4Addr> {
        let served = self.served.borrow();
        if arrival.from.is_loopback() {
            return Some(arrival.local);
        }
        let interface =
            served.on_lan(arrival.from).or_else(|| served.with_address(arrival.back()?));
        interface.map(|interface| interface.advertised)
    }
}

/// Whether `reveille simulate` asks.
fn is_simulation(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    agent.is_some_and(|agent| agent.ends_with(SIMULATION.as_bytes()))
}

fn v4(address: SocketAddr) -> Ipv4Addr {
    match address {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// Marks the connection as serving a request until the end of the response.
async fn under_way(Extension(place): Extension<Place>, request: Request, next: Next) -> Response {
    let under_way = place.begin();
    next.run(request).await.map(|body| under_way.until_end_of(body))
}

/// A web page must not reach this server through the browser of somebody on the LAN.
async fn only_what_machines_send(
    State(server): State<Server>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    request: Request,
    next: Next,
) -> Response {
    let config = Arc::clone(&server.config.borrow());
    let is_local = |address| address == IpAddr::V4(arrival.local) || is_own_address(address);
    let hosts = &config.server.http_hosts;
    match guard::check(request.uri(), request.headers(), hosts, is_local) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let server = server.serving(request.headers());
            server.refuse_request(arrival, &request, refusal.to_string());
            (refusal.status(), "only booting machines are served; the server's log says why\n")
                .into_response()
        }
    }
}

/// A script may hold a join token: who comes in on another interface gets nothing.
async fn only_where_machines_boot(
    State(server): State<Server>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    request: Request,
    next: Next,
) -> Response {
    let server = server.serving(request.headers());
    if server.advertised(arrival).is_some() {
        return next.run(request).await;
    }
    let reason = "it comes from a network that is not in `server.interfaces`".to_owned();
    server.refuse_request(arrival, &request, reason);
    let text = "machines do not boot on this network; see `server.interfaces`\n";
    (StatusCode::FORBIDDEN, text).into_response()
}
