//! The person at the keyboard: submits the job, watches it, resumes what is suspended, sends sinks back, keeps savepoints, and stops the job
//! to submit it again.
//!
//! Run on a host of its own by `simulation/mod.rs`, with the real client. An errand takes several commands, each of which may fail or be
//! answered by nobody; it goes on where it stands at the next look. Failure: told in the trace; what a master must not have allowed is told
//! to the ledger.

use std::time::Duration;

use millstream_common::client::{ControlClient, Error};
use millstream_common::control::{
    ControlError, JobState, JobView, RewindTerms, SinkCommand, StopMode, SubmitRequest,
};
use millstream_common::ids::{Epoch, JobName};

use crate::hosts::{Host, JOB, MASTER_ADDRESSES};
use crate::outside::World;
use crate::scenario::Manner;
use crate::trace::{self, event};
use crate::workload::is_keyed;

/// Between two looks at the job.
const LOOK_INTERVAL: Duration = Duration::from_millis(700);

/// A person who hears nothing for so long says it again.
const SUBMIT_PATIENCE: Duration = Duration::from_millis(800);
/// The same where the answer waits for an epoch, or for sinks.
const WISH_PATIENCE: Duration = Duration::from_secs(4);

/// What is asked of the job as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// Keep the next epoch under that name.
    Keep(&'static str),
    /// Keep it no longer.
    Drop(&'static str),
    /// Stop; it is submitted again as soon as it has.
    Stop,
}

/// A sink is to be sent back.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    pub(crate) sink: &'static str,
    /// To the epoch that it held at such a share of its past.
    pub(crate) share: f64,
    pub(crate) manner: Manner,
    pub(crate) stage: Stage,
}

/// How far an errand has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// Nothing is done yet.
    Wanted,
    /// It is known where to; the log knew of so many rewinds of the sink then. Where a copy is taken, the sink is paused.
    Chosen { to: Epoch, rewind_count: usize },
    /// It is in the log; the table is restored, and the sink has to be resumed.
    Restored,
    /// The table is older than where the sink was sent back to, and the sink resumed: it says so, and has to be sent back there.
    Older { to: Epoch, held: Epoch },
}

/// What comes of a step.
enum Next {
    Stage(Stage),
    /// The same again at the next look.
    Again,
    Done,
}

/// What a command came to that a master has answered.
type Answer = Result<(), ControlError>;

impl Host {
    /// Submits the job and watches it to its end; goes on about whatever fails.
    pub(crate) async fn run_client(self, sql: String) {
        loop {
            match self.client_life(&sql).await {
                Ok(()) => return,
                Err(error) => event!("client: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn client_life(&self, sql: &str) -> Result<(), Error> {
        let name = JobName(JOB.to_owned());
        let client = ControlClient::connect(self.net(), MASTER_ADDRESSES).await?;
        let person = Person {
            host: self,
            client: &client,
            name: &name,
        };
        loop {
            match client.job(&name).await {
                Ok(job) if job.state == JobState::Finished => {
                    event!("job finished at epoch {}", job.epoch);
                    return Ok(());
                }
                Ok(job) if !job.state.is_over() => person.look(&job).await?,
                Ok(_) | Err(Error::Refused(ControlError::NotFound { .. })) => {
                    let request = SubmitRequest {
                        name: name.clone(),
                        sql: sql.to_owned(),
                        file: "clicks.sql".to_owned(),
                        fresh: false,
                        from: None,
                        id: None,
                    };
                    let submitting = client.submit(request);
                    match tokio::time::timeout(SUBMIT_PATIENCE, submitting).await {
                        Ok(submitted) => {
                            let resumed_from = submitted?.resumed_from;
                            event!("job submitted, goes on from {resumed_from:?}");
                        }
                        Err(_) => event!("whoever submits gives up, and looks again"),
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Who commands the job's sinks.
struct Person<'a> {
    host: &'a Host,
    client: &'a ControlClient,
    name: &'a JobName,
}

impl Person<'_> {
    async fn look(&self, job: &JobView) -> Result<(), Error> {
        let resumed_from = self.world(|world| world.resumed_from);
        let suspended = job.sinks.iter().filter(|sink| sink.suspended);
        for sink in suspended.filter(|_| trace::now() >= resumed_from) {
            let resumed = self.command(&sink.name, SinkCommand::Resume).await?;
            event!("sink {} is resumed: {resumed:?}", sink.name);
        }
        if let Some(wish) = self.world(|world| world.wishes.first().copied()) {
            return self.ask(wish).await;
        }
        let errand = self.world(|world| world.errands.first().cloned());
        let Some(errand) = errand else {
            return Ok(());
        };
        let next = self.go_on(&errand).await?;
        self.world(|world| match next {
            Next::Again => {}
            Next::Stage(stage) => world.errands[0].stage = stage,
            Next::Done => drop(world.errands.remove(0)),
        });
        Ok(())
    }

    async fn go_on(&self, errand: &Errand) -> Result<Next, Error> {
        match (errand.stage, errand.manner) {
            (Stage::Wanted, Manner::Again) => self.choose(errand).await,
            (Stage::Wanted, _) => match self.command(errand.sink, SinkCommand::Pause).await? {
                Ok(()) => self.choose(errand).await,
                Err(_) => Ok(Next::Done),
            },
            (Stage::Chosen { to, rewind_count }, _) => {
                self.send_back(errand, to, rewind_count).await
            }
            (Stage::Restored, _) => self.resume(errand.sink, Next::Done).await,
            (Stage::Older { to, held }, _) => self.send_further_back(errand.sink, to, held).await,
        }
    }

    /// An answer may be lost: what is asked for then is there, or is not there any more, and a person who looks sees it.
    async fn ask(&self, wish: Wish) -> Result<(), Error> {
        let (client, name) = (self.client, self.name);
        let asked = async {
            match wish {
                Wish::Keep(kept) => client.create_savepoint(name, Some(kept)).await.map(drop),
                Wish::Drop(kept) => client.drop_savepoint(name, kept).await.map(drop),
                Wish::Stop => client.stop(name, StopMode::Stop).await.map(drop),
            }
        };
        let answer = match tokio::time::timeout(WISH_PATIENCE, asked).await {
            Ok(answer) => answered(answer)?,
            Err(_) => Ok(()),
        };
        event!("{wish:?}: {answer:?}");
        self.world(|world| world.wishes.remove(0));
        Ok(())
    }

    async fn choose(&self, errand: &Errand) -> Result<Next, Error> {
        let sink = errand.sink;
        let stage = self.world(|world| Stage::Chosen {
            to: match errand.manner {
                Manner::Again => world.ledger.held_at(sink, errand.share),
                Manner::Restored | Manner::RestoredOlder => world.copy_at(sink, errand.share),
            },
            rewind_count: world.ledger.rewind_count(sink),
        });
        if let Stage::Chosen { to, .. } = stage
            && errand.manner == Manner::Again
            && !is_keyed(sink)
        {
            // Whoever says nothing of rows that come twice must not get them.
            match self.rewind(sink, to, false).await? {
                Ok(()) => self.violated(format!("sink {sink} appends, and is sent back to {to}")),
                Err(ControlError::NotRunning { .. }) => return Ok(Next::Done),
                Err(_) => {}
            }
        }
        Ok(Next::Stage(stage))
    }

    async fn send_back(
        &self,
        errand: &Errand,
        to: Epoch,
        rewind_count: usize,
    ) -> Result<Next, Error> {
        let sink = errand.sink;
        let is_copied = errand.manner != Manner::Again;
        // The answer to the last try may be lost.
        let is_told = self.world(|world| world.ledger.rewind_count(sink) > rewind_count);
        if !is_told {
            let may_duplicate = is_copied || !is_keyed(sink);
            match self.rewind(sink, to, may_duplicate).await? {
                Ok(()) => self.check_sent_to(sink, to),
                Err(refused) if is_passing(&refused) => return Ok(Next::Again),
                Err(_) if is_copied => return self.resume(sink, Next::Done).await,
                Err(_) => return Ok(Next::Done),
            }
        }
        if !is_copied {
            return Ok(Next::Done);
        }
        let older = match errand.manner {
            Manner::RestoredOlder => self.world(|world| world.copy_before(sink, to)),
            Manner::Again | Manner::Restored => None,
        };
        self.world(|world| world.restore(sink, older.unwrap_or(to)));
        match older {
            None => Ok(Next::Stage(Stage::Restored)),
            Some(held) => {
                let stage = Stage::Older { to, held };
                self.resume(sink, Next::Stage(stage)).await
            }
        }
    }

    /// As the sink's own trouble advises; where that is not kept any more, another copy is found.
    async fn send_further_back(
        &self,
        sink: &'static str,
        to: Epoch,
        held: Epoch,
    ) -> Result<Next, Error> {
        match self.rewind(sink, held, true).await? {
            Ok(()) => {}
            Err(refused) if is_passing(&refused) => return Ok(Next::Again),
            Err(ControlError::Invalid(cause)) if cause.contains("not kept any more") => {
                self.world(|world| world.restore(sink, to));
            }
            Err(_) => {}
        }
        Ok(Next::Done)
    }

    async fn resume(&self, sink: &str, next: Next) -> Result<Next, Error> {
        let resumed = self.command(sink, SinkCommand::Resume).await?;
        event!("sink {sink} is resumed: {resumed:?}");
        match resumed {
            // The job has failed: it is submitted again, and the sink is paused still.
            Err(ControlError::NotRunning { .. }) => Ok(Next::Again),
            Ok(()) | Err(_) => Ok(next),
        }
    }

    async fn command(&self, sink: &str, command: SinkCommand) -> Result<Answer, Error> {
        let commanded = self.client.command_sink(self.name, sink, command).await;
        answered(commanded.map(drop))
    }

    async fn rewind(&self, sink: &str, to: Epoch, may_duplicate: bool) -> Result<Answer, Error> {
        let terms = RewindTerms {
            to: Some(to),
            may_duplicate,
        };
        let rewound = self.client.rewind_sink(self.name, sink, terms).await;
        let answer = answered(rewound.map(drop))?;
        match &answer {
            Ok(()) => event!("sink {sink} is to go back to {to}"),
            Err(refused) => event!("sink {sink} stays: {refused}"),
        }
        Ok(answer)
    }

    /// There was an epoch of that number: another one is not what was asked for.
    fn check_sent_to(&self, sink: &str, asked: Epoch) {
        let told = self.world(|world| world.ledger.newest_rewind(sink));
        if told != Some(asked) {
            self.violated(format!(
                "sink {sink} was to go back to {asked}, the log says {told:?}"
            ));
        }
    }

    fn violated(&self, what: String) {
        self.world(|world| world.ledger.violated("INV-3", what));
    }

    fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        self.host.outside.with(look)
    }
}

fn answered(called: Result<(), Error>) -> Result<Answer, Error> {
    match called {
        Ok(()) => Ok(Ok(())),
        // Another master may be there at the next look.
        Err(Error::Refused(refused @ ControlError::Unavailable { .. })) => {
            Err(Error::Refused(refused))
        }
        Err(Error::Refused(refused)) => Ok(Err(refused)),
        Err(error) => Err(error),
    }
}

/// Whether the same may be asked again a little later.
fn is_passing(refused: &ControlError) -> bool {
    matches!(refused, ControlError::Invalid(cause) if cause.contains("try again"))
}
