//! `publish`: a RabbitMQ message per line of stdin.

use bytes::Bytes;
use muslin::Result;
use muslin::amqp::{Message, Publisher, Queued};

use super::sending::{Sending, Source, send_all};
use crate::args::Publish;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;

struct Messages {
    publisher: Publisher,
    exchange: String,
    routing_key: String,
    headers: Vec<(String, String)>,
}

impl Sending for Messages {
    type Tag = ();
    type Done = ();
    type Queued = Queued;

    async fn put(&self, line: Bytes) -> Result<((), Queued)> {
        let mut message = Message::new(line);
        for (name, value) in &self.headers {
            message = message.header(name, value.as_str());
        }
        Ok(((), self.publisher.enqueue(&self.exchange, &self.routing_key, message).await?))
    }

    fn print(&self, (): (), (): (), _: &mut Data) -> std::result::Result<(), Failure> {
        Ok(())
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: Publish) -> Outcome {
    let Some(client) = context.amqp().await? else { return Ok(Ended::Interrupted) };
    let (exchange, routing_key, mandatory) = match args.queue {
        Some(queue) => {
            client.queue(&queue).join().declare().await.map_err(Failure::setup)?;
            (String::new(), queue, true)
        }
        None => (args.exchange.unwrap_or_default(), args.routing_key.unwrap_or_default(), args.mandatory),
    };
    let publisher = client.publisher().await.map_err(Failure::setup)?.mandatory(mandatory);
    let messages = Messages { publisher, exchange, routing_key, headers: args.header };
    let ended = send_all(&context, Source::stdin(), &messages).await?;
    let _ = client.close().await;
    Ok(ended)
}
