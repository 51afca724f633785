// Handshakes as Java's own TLS makes them: `java Client.java ROOTS HOST:PORT…`, one line `PORT WORDS` each.

import java.io.FileInputStream;
import java.net.Socket;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

class Client {
    public static void main(String[] arguments) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        try (FileInputStream file = new FileInputStream(arguments[0])) {
            int number = 0;
            for (Certificate root : CertificateFactory.getInstance("X.509").generateCertificates(file)) {
                roots.setCertificateEntry("root" + number++, root);
            }
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        for (int i = 1; i < arguments.length; i++) {
            String[] target = arguments[i].split(":");
            System.out.println(target[1] + " " + handshake(context.getSocketFactory(), target[0], Integer.parseInt(target[1])));
        }
    }

    private static String handshake(SSLSocketFactory factory, String host, int port) throws Exception {
        try (Socket plain = new Socket("127.0.0.1", port);
             SSLSocket socket = (SSLSocket) factory.createSocket(plain, host, port, true)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            return "";
        } catch (SSLException refused) {
            return refused.getClass().getSimpleName() + ": " + String.valueOf(refused.getMessage()).replace('\n', ' ');
        }
    }
}
