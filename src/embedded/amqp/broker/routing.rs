//! From a message to its queues: through exchanges, bindings between them, and alternate exchanges.
//!
//! Each exchange is passed once and each queue found once, so that cycles end. A message that an exchange has no
//! binding for goes to its alternate exchange.

use super::Broker;
use super::api::{ExchangeKey, QueueKey, VhostKey};
use super::exchange::Router;
use super::message::Message;
use super::targets::Target;
use crate::amqp::Table;

/// What routing needs room for; kept from one message to the next.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// The queues that were found, each once and in the order of their keys.
    pub(super) queues: Vec<QueueKey>,
    seen: Vec<ExchangeKey>,
    ahead: Vec<ExchangeKey>,
}

impl Route {
    fn found(&mut self, target: Target) {
        match target {
            Target::Queue(queue) => self.queues.push(queue),
            Target::Exchange(exchange) => self.visit(exchange),
        }
    }

    fn visit(&mut self, exchange: ExchangeKey) {
        if !self.seen.contains(&exchange) {
            self.seen.push(exchange);
            self.ahead.push(exchange);
        }
    }
}

impl Broker {
    /// Fills `self.route` with the queues for a message. The exchange of that name exists, or else nothing is found.
    pub(super) fn find_queues(&mut self, vhost: VhostKey, exchange: &[u8], message: &Message) {
        let route = &mut self.route;
        route.queues.clear();
        let Some(host) = self.vhosts.get(vhost) else { return };
        if exchange.is_empty() {
            if message.more_keys.is_none() {
                route.queues.extend(host.queues.get(&message.routing_key));
                return;
            }
            route.queues.extend(message.routing_keys().filter_map(|key| host.queues.get(key)));
        } else {
            let Some(key) = host.exchanges.get(exchange) else { return };
            route.seen.clear();
            route.visit(*key);
            let mut headers = None;
            while let Some(key) = route.ahead.pop() {
                let Some(exchange) = self.exchanges.get_mut(key) else { continue };
                if !look_up(&mut exchange.router, message, &mut headers, route)
                    && let Some(alternate) = &exchange.alternate
                {
                    if alternate.is_empty() {
                        let queues = message.routing_keys().filter_map(|key| host.queues.get(key));
                        route.queues.extend(queues);
                    } else if let Some(key) = host.exchanges.get(alternate) {
                        route.visit(*key);
                    }
                }
            }
        }
        if route.queues.len() > 1 {
            route.queues.sort_unstable();
            route.queues.dedup();
        }
    }
}

/// Whether some binding fits.
fn look_up(router: &mut Router, message: &Message, headers: &mut Option<Table>, route: &mut Route) -> bool {
    let mut any = false;
    let mut found = |target| {
        any = true;
        route.found(target);
    };
    match router {
        Router::Direct(keys) => {
            for targets in message.routing_keys().filter_map(|key| keys.get(key)) {
                targets.iter().for_each(&mut found);
            }
        }
        Router::Fanout(targets) => targets.iter().for_each(&mut found),
        Router::Topic(patterns) => {
            for key in message.routing_keys() {
                patterns.matching(key, |targets| targets.iter().for_each(&mut found));
            }
        }
        Router::Headers(bindings) => {
            let headers = headers.get_or_insert_with(|| message.headers().unwrap_or_default());
            let fitting = bindings.iter().filter(|(_, pattern)| pattern.fits(headers));
            fitting.for_each(|(id, _)| found(id.target));
        }
    }
    any
}
