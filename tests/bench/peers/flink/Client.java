import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.DeploymentOptions;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/**
 * Runs the statements of a file one after another on the cluster that FLINK_CONF_DIR describes, and waits for each INSERT.
 *
 * <p>Started by `run`. Prints `submitting` before an INSERT and `finished JOB` behind it. Failure: a statement or a job that fails ends it with the
 * cause.
 */
public class Client {
    public static void main(String[] arguments) throws Exception {
        Configuration configuration = GlobalConfiguration.loadConfiguration(System.getenv("FLINK_CONF_DIR"));
        configuration.set(DeploymentOptions.TARGET, "remote");
        EnvironmentSettings settings =
                EnvironmentSettings.newInstance().withConfiguration(configuration).inStreamingMode().build();
        TableEnvironment environment = TableEnvironment.create(settings);
        for (String statement : Files.readString(Path.of(arguments[0])).split(";\\s*\n")) {
            boolean inserts = statement.strip().startsWith("INSERT");
            if (inserts) {
                System.out.println("submitting");
            }
            TableResult result = environment.executeSql(statement);
            if (inserts) {
                result.await();
                System.out.println("finished " + result.getJobClient().orElseThrow().getJobID());
            }
        }
    }
}
