//! What operators see of sagas, and ask of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use es_core::{
    ActionContext, ActionError, Correlation, Recorded, Service, Step, StepSaga, Steps,
    react::saga::Status,
    testing::account::{Account, AccountCommand, AccountEvent},
};
use serde_json::{Value, json};

use super::fixture::Place;

const PATIENCE: Duration = Duration::from_secs(20);
const WHY: [&str; 4] = ["--reason", "ticket 7", "--actor", "ada"];

/// Sends a card, and then a parcel.
struct Sending {
    has_parcels: Arc<AtomicBool>,
}

#[async_trait]
impl StepSaga for Sending {
    const NAME: &'static str = "sending-cards";
    type Event = AccountEvent;
    type Data = ();
    type Action = String;
    type Answer = ();

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        Correlation::Starts(event.stream.id().to_owned())
    }

    fn learn((): &mut (), _: &Recorded<AccountEvent>) {}

    fn steps(_: u32) -> Steps<Self> {
        let card = Step::new("card", |()| "a card with the name of Ada".to_owned());
        let parcel = Step::new("parcel", |()| "parcel".to_owned()).time_limit(Duration::from_hours(1));
        Steps::new().step(card.compensated_by(|()| "excuse".to_owned())).step(parcel)
    }

    async fn perform(&self, action: &String, _: ActionContext) -> Result<(), ActionError> {
        if action == "parcel" && !self.has_parcels.load(Ordering::SeqCst) {
            return Err(ActionError::Permanent("there are no parcels".into()));
        }
        Ok(())
    }
}

impl Place {
    /// A saga for each account, until it is `status`.
    fn send(&self, has_parcels: bool, accounts: &[&str], status: Status) {
        let has_parcels = Arc::new(AtomicBool::new(has_parcels));
        self.runtime.block_on(async {
            let service = Service::builder("cards", self.store().await).aggregate::<Account>();
            let service = service.saga(|_| Sending { has_parcels }).start().await.unwrap();
            for account in accounts {
                let repository = service.repository::<Account>();
                if repository.load(account).await.unwrap().version.get() == 0 {
                    repository.execute(*account, AccountCommand::Deposit(1)).await.unwrap();
                }
                let ends = async {
                    while service.sagas::<Sending>().ended(account, PATIENCE).await.unwrap().status != status {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(PATIENCE, ends).await.unwrap();
            }
            service.settled(PATIENCE).await.unwrap();
            service.shutdown(PATIENCE).await.unwrap();
        });
    }

    fn states(&self) -> Value {
        let lines = self.es(&["sagas", "list", "sending-cards", "--json"]).json();
        json!(lines.iter().map(|line| [&line["instance"], &line["state"]]).collect::<Vec<_>>())
    }
}

#[test]
fn r22_instances_are_listed_and_shown_and_do_what_operators_ask() {
    for place in [Place::on_a_file(), Place::on_a_server()] {
        place.send(false, &["a", "b", "c", "d"], Status::Failed);
        assert_eq!(place.states(), json!([["a", "failed"], ["b", "failed"], ["c", "failed"], ["d", "failed"]]));
        let counts = place.es(&["sagas", "list", "--count", "--state", "failed", "--json"]).json();
        assert_eq!(counts, [json!({"saga": "sending-cards", "state": "failed", "instances": 4})]);
        let limited = place.es(&["sagas", "list", "--limit", "2"]);
        assert!(limited.err.contains("there are more than 2") && limited.out.lines().count() == 3, "{}", limited.out);
        assert_eq!(place.es(&["sagas", "list", "unknown"]).code, 1);

        // Nothing is asked without a reason, without an instance, or in a dry run.
        assert_eq!(place.es(&["sagas", "retry", "sending-cards", "a"]).code, 2);
        assert_eq!(place.es(&[&["sagas", "retry", "sending-cards"][..], &WHY].concat()).code, 2);
        assert_eq!(place.es(&[&["sagas", "retry", "sending-cards", "z"][..], &WHY].concat()).code, 1);
        let dry = place.es(&["sagas", "retry", "sending-cards", "--cause", "no parcels", "--dry-run"]);
        assert_eq!((dry.code, dry.out.lines().count()), (0, 5), "{}", dry.out);
        let cancel = ["sagas", "cancel", "sending-cards", "b"];
        assert_eq!(place.es(&[&cancel[..], &WHY].concat()).code, 2, "it is not confirmed");

        let asks = [
            &["sagas", "retry", "sending-cards", "a"][..],
            &[&cancel[..], &["--yes"]].concat(),
            &["sagas", "compensate", "sending-cards", "c", "--yes"],
            &["sagas", "skip-step", "sending-cards", "--step", "parcel", "d", "--yes"],
        ];
        for ask in asks {
            let run = place.es(&[ask, &WHY].concat());
            assert_eq!(run.code, 0, "{ask:?}: {}", run.err);
        }
        place.send(true, &["b"], Status::Cancelled);
        place.send(true, &["a", "d"], Status::Completed);
        place.send(true, &["c"], Status::Compensated);

        let shown = place.es(&["sagas", "show", "sending-cards", "c"]).out;
        let told = [
            "account.deposited v1 (account-c, version 1)",
            "begins card (action 1)",
            "card (action 1) was done",
            "begins parcel (action 2)",
            "sets the timer parcel at ",
            "has failed: an action failed: there are no parcels",
            "ada asks: compensate (ticket 7)",
            "does what ada has asked for: compensate",
            "gives up parcel (action 2)",
            "begins what takes back card",
            "has ended: compensated",
        ];
        let mut at = 0;
        for text in told {
            at += shown[at..].find(text).unwrap_or_else(|| panic!("{text:?} is missing after {at} in {shown}"));
        }
        assert!(!shown.contains("name of Ada"), "what it holds may be personal");
        assert!(place.es(&["sagas", "show", "sending-cards", "c", "--data"]).out.contains("name of Ada"));
        assert_eq!(place.es(&["sagas", "show", "sending-cards", "c", "--json"]).json()[0]["type"], "saga.advanced");

        let restart = ["sagas", "restart-from", "sending-cards", "--step", "card", "a", "--yes"];
        assert_eq!(place.es(&[&restart[..], &WHY].concat()).code, 0);
        place.send(true, &["a"], Status::Completed);
        let shown = place.es(&["sagas", "show", "sending-cards", "a"]).out;
        assert!(shown.contains("ada asks: restart from card (ticket 7)"), "{shown}");
    }
}
