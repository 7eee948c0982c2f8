//! `/boot/<mac>.ipxe`, `/files/<mac>/<name>`, `/nbp/<name>` and `/images/<image>/<part>`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Query, RawQuery, Request, State};
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;
use tower_http::services::ServeFile;
use tower_http::services::fs::ServeFileSystemResponseBody;
use uuid::Uuid;

use super::body::FileBody;
use super::delivery::{SLACK, Wire};
use super::tracked::{Progress, tracked};
use super::{Arrival, Server, is_simulation};
use crate::pure::boot::served_names::{self, Asked};
use crate::pure::boot::urls::{self, NO_DISK, NOT_STARTED};
use crate::pure::catalog::nbp::Nbp;
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Arch, Client, Cpu, Facts, Mac, PciId, Stage};
use crate::pure::config::snapshot::Snapshot;
use crate::pure::event::boot::{Break, Event, Sent, Step, Subject};
use crate::pure::printable;
use crate::pure::script::render;
use crate::server::machine_script::{self, Answer, FileRequest, Links, Report, ScriptRequest};
use crate::state::registry::BootRequest;
use crate::sys::files::{Version, open, reason};

/// How much of a fact is taken: SMBIOS strings are short, and a client can send what it likes.
const LONGEST_FACT: usize = 200;

/// A script is made for one request, and must not be kept by anything on the way.
const SCRIPT_HEADERS: [(HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];

/// A machine's own script.
pub async fn script(
    State(server): State<Server>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    Path(file): Path<String>,
    RawQuery(query): RawQuery,
    (method, headers): (Method, HeaderMap),
) -> Response {
    let server = server.serving(&headers);
    let mac = file.strip_suffix(".ipxe").and_then(|name| name.parse::<Mac>().ok());
    let Some((mac, address)) = mac.zip(server.advertised(arrival)) else {
        return not_found("there are scripts at /boot/<mac>.ipxe only, with hyphens in the MAC\n");
    };
    let neighbour = server.neighbours.settled(arrival.from).await;
    let config = Arc::clone(&server.config.borrow());
    let told = urls::told(query.as_deref().unwrap_or_default());
    let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    let may_be_asked = agent.is_some_and(|agent| agent.starts_with(b"iPXE/"));
    // A simulation reads the script, as people do.
    let is_ipxe = may_be_asked && !is_simulation(&headers);
    let known = server.registry.state(&server.registry.whose(mac, &config.catalog));
    let client = Client { may_be_asked, ..client(mac, arrival.from, &told, known.arch) };
    drop(known);
    let is_told = |(name, value): (&str, &str)| told.get(name).is_some_and(|told| told == value);
    let report = if is_told(NO_DISK) {
        Some(Report::DiskFailed)
    } else {
        is_told(NOT_STARTED).then_some(Report::KernelFailed)
    };
    let sender = (arrival.from, neighbour);
    let id = told.get(urls::ID).and_then(|digits| digits.parse().ok());
    let request = ScriptRequest {
        boot: BootRequest {
            id,
            is_head: method == Method::HEAD,
            ..BootRequest::new(mac, sender, &config)
        },
        client: &client,
        report,
        is_ipxe,
        links: Links::Http(SocketAddrV4::new(address, config.server.http_port)),
    };
    let now = Snapshot { config: &config, shelf: &server.images.shelf() };
    let (subject, answer) = machine_script::answer(&server.registry, now, &request);
    match answer {
        Answer::Given(text, does, id) => {
            server.send_script(text, &method, (subject, Some(id)), |sent| does.steps(sent))
        }
        Answer::Apart(text, step) => {
            server.send_script(text, &method, (subject, None), |_| vec![step])
        }
        Answer::Nothing(reason, id) => {
            let text = format!("{reason}\n");
            if id.is_some() {
                server.registry.record_in(Event { subject, step: reason.step() }, id);
            }
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

/// Who asks, from what the script's address says behind its `?`: iPXE tells an unset fact as empty.
pub(crate) fn client(
    mac: Mac,
    address: Ipv4Addr,
    told: &BTreeMap<&str, String>,
    known: Option<Arch>,
) -> Client {
    let given = |name: &str| {
        // What it says goes to terminals, too.
        let fact: String = told.get(name)?.chars().map(printable::blank).collect();
        let fact: String = fact.trim().chars().take(LONGEST_FACT).collect();
        (!fact.is_empty()).then_some(fact)
    };
    let platform = given("platform").zip(given("arch"));
    let arch = platform.and_then(|(platform, arch)| urls::arch_of_platform(&platform, &arch));
    let cpu = given("cpu");
    let facts = Facts {
        serial: given("serial"),
        product: given("product"),
        vendor: given("vendor"),
        cpu: Cpu::WORDS.iter().find(|(word, _)| Some(*word) == cpu.as_deref()).map(|(_, cpu)| *cpu),
        has_v2: given("v2").and_then(|told| urls::has_v2(&told)),
        nic: given("nic").and_then(|busid| PciId::of_busid(&busid)),
    };
    let was_asked =
        ["uuid", "serial", "product", "vendor"].iter().any(|fact| told.contains_key(*fact));
    Client {
        mac: Some(mac),
        arch: arch.or(known),
        uuid: given("uuid").and_then(|uuid| Uuid::parse_str(&uuid).ok()),
        address: Some(address),
        facts: was_asked.then_some(facts),
        choice: given("profile"),
        has_no_disk: given(NO_DISK.0).as_deref() == Some(NO_DISK.1),
        ..Client::at(Stage::Ipxe)
    }
}

/// A machine's own answer file: preseed, kickstart, Ignition, cloud-init, a machine config.
pub async fn file(
    state: State<Server>,
    arrival: ConnectInfo<Arrival>,
    Path((mac, file_id, name)): Path<(String, String, String)>,
    method: Method,
) -> Response {
    answer_file(state.0, arrival.0, (&mac, Some(&file_id), &name), &method).await
}

/// The same where the address names no boot, as who looks at a script has it.
pub async fn file_of_no_boot(
    state: State<Server>,
    arrival: ConnectInfo<Arrival>,
    Path((mac, name)): Path<(String, String)>,
    method: Method,
) -> Response {
    answer_file(state.0, arrival.0, (&mac, None, &name), &method).await
}

async fn answer_file(
    server: Server,
    arrival: Arrival,
    (mac, file_id, name): (&str, Option<&str>, &str),
    method: &Method,
) -> Response {
    let Some((card, address)) = mac.parse::<Mac>().ok().zip(server.advertised(arrival)) else {
        return not_found(
            "there are files at /files/<mac>/<id>/<name> only, with hyphens in the MAC\n",
        );
    };
    let neighbour = server.neighbours.settled(arrival.from).await;
    let config = Arc::clone(&server.config.borrow());
    let known = server.registry.whose(card, &config.catalog);
    let request = FileRequest {
        boot: BootRequest::new(card, (arrival.from, neighbour), &config),
        file_id: file_id.and_then(|digits| digits.parse().ok()),
        name,
        base: &urls::base(address, config.server.http_port),
    };
    let now = Snapshot { config: &config, shelf: &server.images.shelf() };
    match machine_script::answer_file(&server.registry, now, &request) {
        Ok(text) => {
            let file = format!("files/{name}");
            let done = |sent| vec![Step::FileSent { file, sent }];
            let subject = Subject { address: Some(arrival.from), ..known };
            server.send_script(text, method, (subject, None), done)
        }
        Err(reason) => {
            let who = server.registry.subject_at(arrival.from, neighbour, &config.catalog);
            server.refuse(who, &format!("files/{}/{name}", card.hyphenated()), &reason)
        }
    }
}

/// An NBP, for UEFI HTTP Boot; or `autoexec.ipxe`, which iPXE looks for where it came from.
pub async fn nbp(
    State(server): State<Server>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let server = server.serving(request.headers());
    let config = Arc::clone(&server.config.borrow());
    let neighbour = server.neighbours.at(arrival.from);
    let subject = server.registry.subject_at(arrival.from, neighbour, &config.catalog);
    let state = server.registry.state(&subject);
    let now = Snapshot { config: &config, shelf: &server.images.shelf() };
    match served_names::asked(name.as_bytes(), now.served(), (&state, SystemTime::now())) {
        Ok(Asked::Autoexec(file)) => {
            let Some(address) = server.advertised(arrival) else {
                return not_found("nothing boots from here\n");
            };
            let base = urls::base(address, config.server.http_port);
            match render::render_autoexec(&config.templates, &base) {
                Ok(text) => {
                    let done = |sent| vec![Step::AutoexecSent { file, sent }];
                    server.send_script(text, request.method(), (subject, None), done)
                }
                Err(refusal) => server.refuse(subject, &name, &refusal.to_string()),
            }
        }
        Ok(Asked::Nbp(Nbp { name, path, arch, .. })) => {
            let uefi = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("efi"));
            let kind = if uefi { "application/efi" } else { "application/octet-stream" };
            let done = move |file, sent| Step::NbpSent { file, arch, sent };
            server.serve((subject, None), (name, path), (kind, done, None), request).await
        }
        Ok(Asked::Companion(name, path)) => {
            let done = |file, sent| Step::CompanionSent { file, sent };
            let kind = "application/octet-stream";
            server.serve((subject, None), (name, path), (kind, done, None), request).await
        }
        // They have addresses of their own.
        Ok(Asked::Image(..) | Asked::Script(..)) => {
            server.refuse(subject, &name, &served_names::Refusal::Unknown.to_string())
        }
        Err(refusal) => server.refuse(subject, &name, &refusal.to_string()),
    }
}

/// A kernel or an initrd.
pub async fn image(
    State(server): State<Server>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    Path((image, part)): Path<(String, String)>,
    Query(whose): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let server = server.serving(request.headers());
    let config = Arc::clone(&server.config.borrow());
    let id = whose.get(urls::ID).and_then(|digits| digits.parse().ok());
    let mac = whose.get("mac").and_then(|mac| mac.parse().ok());
    let sender = (arrival.from, server.neighbours.at(arrival.from));
    let (subject, id) = machine_script::image_fetch(&server.registry, &config, (mac, id), sender);
    let name = format!("{image}/{part}");
    let now = Snapshot { config: &config, shelf: &server.images.shelf() };
    match served_names::image_part(
        &image,
        &part,
        whose.get("set").map(String::as_str),
        now.served(),
    ) {
        Ok(path) => {
            if let Err(reason) = server.images.serves(&path).await {
                return server.refuse(subject, &name, &reason);
            }
            let done = |file, sent| Step::ImageSent { file, sent };
            let kind = "application/octet-stream";
            // That is what completes a boot.
            let wire = request.extensions().get::<Wire>().cloned();
            server.serve((subject, id), (name, path), (kind, done, wire), request).await
        }
        Err(refusal @ served_names::Refusal::Coming(..)) => {
            let reason = refusal.to_string();
            server.refuse(subject, &name, &reason);
            let mut response = format!("{reason}\n").into_response();
            // iPXE waits for so long and asks again by itself (`net/tcp/httpcore.c`).
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(header::RETRY_AFTER, render::WAIT.as_secs().into());
            response
        }
        Err(refusal) => server.refuse(subject, &name, &refusal.to_string()),
    }
}

impl Server {
    /// Serves a file, and records how that ended; `done` makes the step that it is to have fetched it. A HEAD or a part of the file is no step of a boot.
    async fn serve(
        self,
        (subject, id): (Subject, Option<BootId>),
        (name, path): (String, PathBuf),
        (kind, done, wire): (
            &'static str,
            impl FnOnce(String, Sent) -> Step + Send + 'static,
            Option<Wire>,
        ),
        request: Request,
    ) -> Response {
        let whole = request.method() == Method::GET;
        let (file, mut response) = match opened(&path, request).await {
            Ok(opened) => opened,
            Err(reason) => {
                return self.refuse(subject, &name, &format!("{}: {reason}", path.display()));
            }
        };
        if response.status().is_success() {
            let kind = HeaderValue::from_static(kind);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let (parts, body) = response.into_parts();
        // The head is right in every respect; the body is sent as it suits the client.
        let body = match (length, from(&parts)) {
            (Some(length), Some(from)) if whole => {
                Body::new(FileBody::new(file, (from, length), self.pieces.clone()))
            }
            (Some(_) | None, _) => Body::new(body),
        };
        let body = match length {
            Some(length) if whole && parts.status == StatusCode::OK => {
                tracked(body, length, move |progress| {
                    let record = move |progress| {
                        let step = ended(name, done, progress);
                        self.registry.record_in(Event { subject, step }, id);
                    };
                    match wire.filter(|_| progress.is_whole() && progress.of > SLACK) {
                        Some(wire) => {
                            wire.when_arrived(move |missing| record(progress.but(missing)))
                        }
                        None => record(progress),
                    }
                })
            }
            _ => body,
        };
        Response::from_parts(parts, body)
    }

    /// Sends a script, and records when it is there. A HEAD is no step of a boot.
    fn send_script(
        self,
        text: String,
        method: &Method,
        (subject, id): (Subject, Option<BootId>),
        done: impl FnOnce(Sent) -> Vec<Step> + Send + 'static,
    ) -> Response {
        let length = text.len() as u64;
        let response = (SCRIPT_HEADERS, text).into_response();
        if method == Method::HEAD {
            return response;
        }
        let ended = move |progress: Progress| {
            if progress.is_whole() {
                for step in done(progress.sent()) {
                    self.registry.record_in(Event { subject: subject.clone(), step }, id);
                }
            }
        };
        let (mut parts, body) = response.into_parts();
        parts.headers.insert(header::CONTENT_LENGTH, length.into());
        Response::from_parts(parts, tracked(body, length, ended))
    }

    fn refuse(&self, subject: Subject, name: &str, reason: &str) -> Response {
        let step = Step::Refused { what: name.to_owned(), reason: reason.to_owned() };
        self.registry.record(Event { subject, step });
        not_found("it cannot be served; the server's log says why\n")
    }
}

/// A file, and the response to a request for it: of one version of it, also where it is replaced meanwhile.
async fn opened(
    path: &FilePath,
    request: Request,
) -> Result<(File, Response<ServeFileSystemResponseBody>), String> {
    let head = ServeFile::new(path).ignore_multi_range_requests(true);
    let request = without_stale_range(request, &head).await;
    let mut versions = 0..3;
    loop {
        let at = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let file = open(&at)?;
            Ok::<_, String>((Version::of(&file.metadata().map_err(|error| reason(&error))?), file))
        });
        let (version, file) = opened.await.map_err(|error| error.to_string())??;
        let mut again = Request::new(Body::empty());
        *again.method_mut() = request.method().clone();
        *again.headers_mut() = request.headers().clone();
        let Ok(response) = head.clone().oneshot(again).await;
        let now = tokio::fs::metadata(path).await.map_err(|error| reason(&error))?;
        if Version::of(&now) == version || versions.next().is_none() {
            return Ok((file, response));
        }
    }
}

/// A part of a file is only worth something to who has the rest of the same version: with an If-Range
/// that is not this version, the whole file is the answer (RFC 9110 section 13.1.5). tower-http does
/// not look at it.
async fn without_stale_range(mut request: Request, file: &ServeFile) -> Request {
    // A Range that is none is as if it were not there (RFC 9110 section 14.2).
    let is_range = |value: &HeaderValue| {
        let range = value.to_str().ok().and_then(|value| value.strip_prefix("bytes="));
        range.is_some_and(|range| range.contains('-'))
    };
    if request.headers().get(header::RANGE).is_some_and(|value| !is_range(value)) {
        request.headers_mut().remove(header::RANGE);
    }
    let Some(validator) = request.headers_mut().remove(header::IF_RANGE) else {
        return request;
    };
    let mut now = Request::new(Body::empty());
    *now.method_mut() = Method::HEAD;
    let Ok(now) = file.clone().oneshot(now).await;
    let current = [header::ETAG, header::LAST_MODIFIED];
    if !current.iter().any(|name| now.headers().get(name) == Some(&validator)) {
        request.headers_mut().remove(header::RANGE);
    }
    request
}

/// Where in its file a response begins, if it is of a file: its Content-Range (RFC 9110 section 14.4).
fn from(parts: &Parts) -> Option<u64> {
    match parts.status {
        StatusCode::OK => Some(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = parts.headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
            range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
        }
        _ => None,
    }
}

fn ended(file: String, done: impl FnOnce(String, Sent) -> Step, progress: Progress) -> Step {
    let sent = progress.sent();
    if progress.is_whole() {
        return done(file, sent);
    }
    let why = progress.failed.map_or(Break::Closed, Break::Failed);
    done(file, sent).broken_off(progress.of, why)
}

fn not_found(text: &'static str) -> Response {
    (StatusCode::NOT_FOUND, text).into_response()
}
